//! What is wrong at present: why objects are not ready, what became of it, and where it stands in the files.

use std::collections::BTreeSet;

use crds::condition::{ConditionStatus, ConditionType};
use operator::plan::{ObjectStatus, StatusBody};
use operator::world::problem::FileProblem;
use operator::world::resource::ObjectKey;
use operator::world::store::FileStore;

/// Why an object is not ready, as its condition `Ready` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotReady {
    /// The file that the object stands in.
    pub(super) file: String,
    /// Line of the field that is wrong, or else of the object.
    pub(super) line: usize,
    /// The object, for example `Endpoint shop/billing`.
    pub(super) object: String,
    /// The first field that is wrong, if the condition names one.
    pub(super) field: Option<String>,
    /// Reason of the condition.
    pub(super) reason: String,
    /// Its message.
    pub(super) message: String,
}

/// What is no longer wrong: a file as a whole, or one object in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Healed {
    /// The file.
    pub(super) file: String,
    /// The object; `None` for a file that was refused.
    pub(super) object: Option<String>,
}

/// All that is wrong.
#[derive(Clone, Debug, Default)]
pub(super) struct Troubles {
    not_ready: Vec<NotReady>,
    places: BTreeSet<Healed>,
}

impl Troubles {
    /// What is wrong now: with files, and with the objects that these statuses are of.
    pub(super) fn now<'a>(
        problems: &[FileProblem],
        statuses: impl Iterator<Item = &'a ObjectStatus>,
        store: &FileStore,
    ) -> Self {
        let not_ready: Vec<NotReady> = statuses.filter_map(|status| not_ready(status, store)).collect();
        let refused = problems.iter().map(|problem| Healed { file: problem.file.clone(), object: None });
        let objects =
            not_ready.iter().map(|object| Healed { file: object.file.clone(), object: Some(object.object.clone()) });
        let places = refused.chain(objects).collect();
        Self { not_ready, places }
    }

    /// Why objects are not ready.
    pub(super) fn not_ready(&self) -> &[NotReady] {
        &self.not_ready
    }

    /// What is not ready now and was not before, or for another reason.
    pub(super) fn new_since(&self, before: &Self) -> Vec<NotReady> {
        let known = |object: &&NotReady| {
            before.not_ready.iter().any(|known| {
                (&known.file, &known.object, &known.reason, &known.message)
                    == (&object.file, &object.object, &object.reason, &object.message)
            })
        };
        self.not_ready.iter().filter(|object| !known(object)).cloned().collect()
    }

    /// What was wrong before and is no longer. A file is right again only once nothing in it is wrong.
    pub(super) fn healed_since(&self, before: &Self) -> Vec<Healed> {
        let still_wrong = |file: &str| self.places.iter().any(|place| place.file == file);
        before
            .places
            .difference(&self.places)
            .filter(|place| place.object.is_some() || !still_wrong(&place.file))
            .cloned()
            .collect()
    }
}

/// Why an object is not ready; `None` if it is, if that is not known yet, or if the object is gone.
fn not_ready(status: &ObjectStatus, store: &FileStore) -> Option<NotReady> {
    let conditions = match &status.body {
        StatusBody::Endpoint(status) => &status.conditions,
        StatusBody::Replay(status) => &status.conditions,
        StatusBody::Subscription(status) => &status.conditions,
        StatusBody::DispatcherPool(status) => &status.conditions,
    };
    let ready = operator::conditions::find(conditions, ConditionType::Ready)?;
    if ready.status != ConditionStatus::False.as_str() {
        return None;
    }
    let key =
        ObjectKey { kind: status.body.kind().as_str(), namespace: status.namespace.clone(), name: status.name.clone() };
    let (file, object) = store.find(&key)?;
    let field = field_of(&ready.message);
    Some(NotReady {
        file: file.to_owned(),
        line: field.map_or(object.line, |field| object.line_of(field)),
        object: key.to_string(),
        field: field.map(str::to_owned),
        reason: ready.reason.clone(),
        message: ready.message.clone(),
    })
}

/// The field that a condition's message begins with: `spec.filter: what is wrong`.
fn field_of(message: &str) -> Option<&str> {
    let (field, _) = message.split_once(": ")?;
    (field == "spec" || field.starts_with("spec.")).then_some(field).filter(|field| !field.contains(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(file: &str, name: &str, message: &str) -> NotReady {
        NotReady {
            file: file.to_owned(),
            line: 1,
            object: format!("Endpoint default/{name}"),
            field: None,
            reason: "SecretNotFound".to_owned(),
            message: message.to_owned(),
        }
    }

    fn troubles(refused: &[&str], not_ready: &[NotReady]) -> Troubles {
        let files = refused.iter().map(|file| Healed { file: (*file).to_owned(), object: None });
        let objects = not_ready.iter().map(|one| Healed { file: one.file.clone(), object: Some(one.object.clone()) });
        Troubles { not_ready: not_ready.to_vec(), places: files.chain(objects).collect() }
    }

    #[test]
    fn news_are_what_changed() {
        let (one, two) = (object("a", "one", "absent"), object("a", "two", "absent"));
        let other = object("a", "one", "empty");
        let before = troubles(&[], std::slice::from_ref(&one));
        let moved = NotReady { line: 9, ..one.clone() };
        for (now, expected) in [
            (vec![one.clone()], vec![]),
            (vec![moved], vec![]),
            (vec![one.clone(), two.clone()], vec![two]),
            (vec![other.clone()], vec![other]),
            (vec![], vec![]),
        ] {
            assert_eq!(troubles(&[], &now).new_since(&before), expected);
        }
    }

    #[test]
    fn a_file_is_right_again_only_once_nothing_in_it_is_wrong() {
        let (one, two) = (object("a", "one", "absent"), object("a", "two", "absent"));
        let file = Healed { file: "a".into(), object: None };
        let healed = |one: &NotReady| Healed { file: one.file.clone(), object: Some(one.object.clone()) };
        let only_two = std::slice::from_ref(&two);
        for (before, now, expected) in [
            (troubles(&["a"], &[]), troubles(&[], &[]), vec![file]),
            (troubles(&["a"], &[]), troubles(&["b"], only_two), vec![]),
            (troubles(&[], &[one.clone(), two.clone()]), troubles(&[], only_two), vec![healed(&one)]),
            (troubles(&[], only_two), troubles(&[], only_two), vec![]),
            (troubles(&[], only_two), troubles(&[], &[]), vec![healed(&two)]),
        ] {
            assert_eq!(now.healed_since(&before), expected);
        }
    }

    #[test]
    fn a_message_tells_its_field() {
        assert_eq!(field_of("spec.filter: no such operator: x"), Some("spec.filter"));
        assert_eq!(field_of("The Secret is missing: spec.url"), None);
        assert_eq!(field_of("In effect"), None);
    }
}
