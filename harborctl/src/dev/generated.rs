//! Secrets with signing keys for endpoints that name none: made once, kept in the data folder.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use dispatcher_core::redacted::Redacted;
use operator::generate::{GENERATED_KEY, signing_key};
use operator::plan::GenerateSecret;
use operator::world::resource::{Resource, read_text};
use operator::world::{SecretData, SecretState, World};

use super::data_folder::DataFolder;
use crate::exit::Failure;

/// The generated Secrets, by namespace and name.
pub(super) struct GeneratedSecrets {
    folder: DataFolder,
    secrets: BTreeMap<(String, String), SecretData>,
}

impl GeneratedSecrets {
    /// Those that were made before.
    pub(super) fn load(folder: DataFolder) -> Result<Self, Failure> {
        let loaded = read_text("generated-secrets.yaml", folder.generated_secrets()?.expose());
        if let Some(problem) = loaded.problems.first() {
            return Err(Failure::Local(format!("{}: {problem}", folder.path().display())));
        }
        let mut secrets = BTreeMap::new();
        for object in loaded.objects {
            if let Resource::Secret(data) = object.resource {
                secrets.insert((object.key.namespace, object.key.name), data);
            }
        }
        Ok(Self { folder, secrets })
    }

    /// Makes Secrets and keeps them, before anything is signed with them.
    pub(super) fn make(&mut self, wanted: &[GenerateSecret]) -> Result<(), Failure> {
        for secret in wanted {
            let random = Redacted::new(rand::random::<[u8; 32]>());
            let data = SecretData::from([(GENERATED_KEY.to_owned(), signing_key(secret.scheme, random.expose()))]);
            self.secrets.insert((secret.namespace.clone(), secret.name.clone()), data);
        }
        self.folder.write_generated_secrets(&to_yaml(&self.secrets))
    }

    /// Adds them to a world, where it has no Secret of that name: one that a person wrote counts first.
    pub(super) fn add_to(&self, world: &mut World) {
        for ((namespace, name), data) in &self.secrets {
            if world.secrets.get(namespace, name).is_none() {
                world.secrets.insert(namespace, name, SecretState::Present(data.clone()));
            }
        }
    }
}

/// The Secrets as YAML documents. Names are those of Kubernetes and need no quotes; values are base64.
fn to_yaml(secrets: &BTreeMap<(String, String), SecretData>) -> Redacted<String> {
    let mut documents = vec!["# Signing keys that `harborctl dev` made. Remove one to have it made anew.\n".to_owned()];
    for ((namespace, name), data) in secrets {
        let metadata = format!("metadata:\n  name: \"{name}\"\n  namespace: \"{namespace}\"\n");
        let values = data.iter().map(|(key, value)| format!("  \"{key}\": {}\n", BASE64.encode(value.expose())));
        documents.push(format!("apiVersion: v1\nkind: Secret\n{metadata}data:\n{}", values.collect::<String>()));
    }
    Redacted::new(documents.join("---\n"))
}

#[cfg(test)]
mod tests {
    use dispatcher_core::table::SigningScheme;

    use super::*;

    #[test]
    fn a_generated_secret_is_the_same_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = GenerateSecret {
            namespace: "123".into(),
            name: "orders-signing-key".into(),
            endpoint: "orders".into(),
            scheme: SigningScheme::StandardWebhooks,
        };
        let value = |secrets: &GeneratedSecrets| {
            let mut world = World::default();
            secrets.add_to(&mut world);
            match world.secrets.get("123", "orders-signing-key") {
                Some(SecretState::Present(data)) => data[GENERATED_KEY].clone(),
                other => panic!("{other:?}"),
            }
        };
        let mut secrets = GeneratedSecrets::load(DataFolder::open(folder.path()).unwrap()).unwrap();
        secrets.make(&[wanted]).unwrap();
        let made = value(&secrets);
        drop(secrets);
        let secrets = GeneratedSecrets::load(DataFolder::open(folder.path()).unwrap()).unwrap();
        assert!(made.expose().starts_with(b"whsec_"));
        assert!(value(&secrets) == made);
    }

    #[test]
    fn a_secret_of_a_person_counts_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut secrets = GeneratedSecrets::load(DataFolder::open(folder.path()).unwrap()).unwrap();
        let key = ("a".to_owned(), "b".to_owned());
        secrets.secrets.insert(key, SecretData::from([("key".to_owned(), Redacted::new(b"generated".to_vec()))]));
        let mut world = World::default();
        let own = SecretData::from([("key".to_owned(), Redacted::new(b"own".to_vec()))]);
        world.secrets.insert("a", "b", SecretState::Present(own));
        secrets.add_to(&mut world);
        let Some(SecretState::Present(data)) = world.secrets.get("a", "b") else { panic!("it is gone") };
        assert_eq!(data["key"].expose(), b"own");
    }
}
