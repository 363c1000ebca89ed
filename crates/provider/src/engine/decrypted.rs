//! Images that were decrypted for one start of one pod.
//!
//! Each is in the engine under a name of its own, and with a configuration of its own: a random label makes it one whose
//! digest nobody can name, or whoever knows the public configuration of the encrypted image could have the engine run what
//! it holds for somebody else. It is there for as long as a container is made of it or its start is under way, and no
//! other start looks for it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use alloy::primitives::hex;
use bollard::{
    errors::Error as DockerError,
    query_parameters::{
        ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptions,
    },
};
use protocol::pod::PodHash;
use rand::RngCore;

use super::{Container, Engine, EngineError, Image, Owner, gone};
use crate::{leases::PodKey, screen::Loadable};

/// Names of what somebody in this process is about to use: decrypted images, and containers that are looked into.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashSet<String>>>);

/// A name that is under way until this is dropped.
#[derive(Debug)]
pub(super) struct Begun {
    name: String,
    under_way: UnderWay,
}

/// The name of an image for one start, under which nothing is removed before this is dropped.
#[derive(Debug)]
pub(crate) struct DecryptedName {
    name: Begun,
    salt: String,
}

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, name: String) -> Begun {
        self.lock().insert(name.clone());
        Begun { name, under_way: self.clone() }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.lock().contains(name)
    }
}

impl Begun {
    pub(super) fn as_str(&self) -> &str {
        &self.name
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.under_way.lock().remove(&self.name);
    }
}

impl DecryptedName {
    pub(crate) fn as_str(&self) -> &str {
        self.name.as_str()
    }

    /// What makes it an image that nobody else can name.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("roadstead.start".to_owned(), self.salt.clone())])
    }
}

/// The repository of an owner's decrypted images: one key may serve several markets on one engine, and knows nothing of what
/// is under way for another. There is no such registry, and never will be (RFC 2606), so nobody pulls anything under this
/// name.
fn repository(owner: Owner) -> String {
    let Owner { provider, chain_id, leases } = owner;
    format!("roadstead.invalid/{}/{chain_id}/{}", hex::encode(provider), hex::encode(leases))
}

impl Engine {
    /// A name for an image that is decrypted for a start of one of a lease's pods.
    pub(crate) fn decrypted_name(&self, key: PodKey, pod: PodHash) -> DecryptedName {
        let mut salt = [0_u8; 32];
        rand::rng().fill_bytes(&mut salt);
        let mut number = [0_u8; 8];
        rand::rng().fill_bytes(&mut number);
        let repository = repository(self.owner);
        let name = format!("{repository}:{}-{}", key.of(pod), hex::encode(number));
        DecryptedName { name: self.under_way.begin(name), salt: hex::encode(salt) }
    }

    /// Gives the engine a decrypted image, which has `name` in its archive.
    pub(crate) async fn load_decrypted(
        &self,
        name: &DecryptedName,
        image: Loadable,
    ) -> Result<Image, EngineError> {
        let name = name.as_str();
        self.import(name, image).await?;
        let lost = || EngineError::Image { image: name.into(), why: "it was not loaded".into() };
        self.inspect(name).await?.ok_or_else(lost)
    }

    /// The image that a container was made of; no other container is.
    pub(crate) async fn image_of(&self, container: &Container) -> Result<Image, EngineError> {
        let id = self.details(container).await?.image.unwrap_or_default();
        let image = self.inspect(&id).await?;
        // Docker removes no image that a container is made of.
        let lost = EngineError::Image { image: id, why: "its container has lost it".into() };
        let mut image = image.ok_or(lost)?;
        image.is_used_up = true;
        Ok(image)
    }

    /// Removes the decrypted images that no container is made of and no start is about to use, with those of their layers
    /// that nothing else has.
    pub(crate) async fn purge_decrypted(&self) -> Result<(), EngineError> {
        let repository = repository(self.owner);
        let filters = HashMap::from([("reference".to_owned(), vec![repository.clone()])]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        let images = self.docker.list_images(Some(options)).await?;
        if images.is_empty() {
            return Ok(());
        }
        // After the images, so that whatever one of them is used for is seen.
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let containers = self.docker.list_containers(Some(options)).await?;
        let used: HashSet<String> = containers.into_iter().filter_map(|c| c.image_id).collect();
        for image in images.iter().filter(|image| !used.contains(&image.id)) {
            let of = |name: &&String| name.rsplit_once(':').is_some_and(|(of, _)| of == repository);
            for name in image.repo_tags.iter().filter(of) {
                if self.under_way.has(name) {
                    continue;
                }
                let removed = self.docker.remove_image(name, None::<RemoveImageOptions>, None);
                match removed.await.map(drop) {
                    // A container was made of it in between.
                    Err(DockerError::DockerResponseServerError { status_code: 409, .. }) => (),
                    removed => gone(removed)?,
                }
            }
        }
        Ok(())
    }
}
