//! The last good content of every file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dispatcher_core::id::TenantId;

use super::files::Loaded;
use super::problem::FileProblem;
use super::resource::{LoadedFile, Located, ObjectKey, Resource, Skipped};
use super::{SecretState, World};

/// Remembers what files held when they were last right: a file that becomes wrong goes on counting as it was, while others
/// change. One that was never right counts with what is right in it. One that disappears takes its objects along.
#[derive(Clone, Debug, Default)]
pub struct FileStore {
    files: BTreeMap<String, StoredFile>,
    /// The file whose object counts, for each object.
    owners: BTreeMap<ObjectKey, String>,
}

#[derive(Clone, Debug, Default)]
struct StoredFile {
    objects: Vec<Located>,
    skipped: Vec<Skipped>,
    was_right: bool,
}

impl FileStore {
    /// Takes what was read. Answers all that is wrong, in the order of files and lines.
    pub fn update(&mut self, loaded: Loaded) -> Vec<FileProblem> {
        let mut problems = loaded.problems;
        if loaded.complete {
            let present: BTreeSet<&str> = loaded.files.iter().map(|file| file.file.as_str()).collect();
            self.files.retain(|file, _| present.contains(file.as_str()));
        }
        for LoadedFile { file, objects, problems: file_problems, skipped } in loaded.files {
            let stored = self.files.entry(file).or_default();
            let is_right = file_problems.is_empty();
            if is_right || !stored.was_right {
                *stored = StoredFile { objects, skipped, was_right: is_right };
            }
            problems.extend(file_problems);
        }
        self.choose_owners(&mut problems);
        problems.sort();
        problems.dedup();
        problems
    }

    /// Objects of kinds that are not for us.
    pub fn skipped(&self) -> impl Iterator<Item = &Skipped> {
        self.files.values().flat_map(|file| &file.skipped)
    }

    /// Whether a file is there.
    pub fn has_file(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }

    /// The file and the place in it of the object that counts.
    pub fn find(&self, key: &ObjectKey) -> Option<(&str, &Located)> {
        let file = self.owners.get(key)?;
        let object = self.files.get(file)?.objects.iter().find(|object| object.key == *key)?;
        Some((file, object))
    }

    /// The resources as a world in which nothing is published and nothing is known.
    pub fn world(&self) -> World {
        let mut world = World::default();
        let mut namespaces = BTreeSet::new();
        for (file, stored) in &self.files {
            for object in stored.objects.iter().filter(|object| self.owners.get(&object.key) == Some(file)) {
                let ObjectKey { namespace, name, .. } = &object.key;
                namespaces.insert(if namespace.is_empty() { name } else { namespace }.clone());
                match &object.resource {
                    Resource::Endpoint(endpoint) => world.endpoints.push(Arc::new((**endpoint).clone())),
                    Resource::Replay(replay) => world.replays.push(Arc::new((**replay).clone())),
                    Resource::Subscription(subscription) => {
                        world.subscriptions.push(Arc::new((**subscription).clone()));
                    }
                    Resource::DispatcherPool(pool) => {
                        // It is there, and nobody delivers for it: a single process delivers for the default pool.
                        world.pools.entry(name.clone()).or_default();
                        world.dispatcher_pools.push(Arc::new((**pool).clone()));
                    }
                    Resource::Secret(data) => world.secrets.insert(namespace, name, SecretState::Present(data.clone())),
                    Resource::Namespace => {}
                }
            }
        }
        world.tenants = namespaces.into_iter().map(|name| (TenantId::of_namespace_name(&name), name)).collect();
        world
    }

    /// Of objects that stand in several files the one that counted before goes on counting, else the first.
    fn choose_owners(&mut self, problems: &mut Vec<FileProblem>) {
        let mut places: BTreeMap<&ObjectKey, Vec<(&String, &Located)>> = BTreeMap::new();
        for (file, stored) in &self.files {
            for object in &stored.objects {
                places.entry(&object.key).or_default().push((file, object));
            }
        }
        let mut owners = BTreeMap::new();
        for (key, places) in places {
            let before = self.owners.get(key);
            let chosen = places.iter().position(|(file, _)| Some(*file) == before).unwrap_or_default();
            let (owner, kept) = places[chosen];
            owners.insert(key.clone(), owner.clone());
            for (_, (file, object)) in places.iter().enumerate().filter(|(index, _)| *index != chosen) {
                problems.push(FileProblem {
                    line: Some(object.line),
                    document: object.document,
                    object: Some(key.to_string()),
                    ..FileProblem::of_file(
                        file,
                        format!("stands already at {owner}:{}; remove one of the two", kept.line),
                    )
                });
            }
        }
        self.owners = owners;
    }
}
