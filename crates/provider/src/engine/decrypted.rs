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

use alloy::primitives::{Address, hex};
use bollard::{
    errors::Error as DockerError,
    query_parameters::{
        ImportImageOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
        RemoveImageOptions,
    },
};
use futures::TryStreamExt;
use protocol::pod::PodHash;
use rand::RngCore;
use tokio_util::io::ReaderStream;

use super::{Container, Engine, EngineError, Image, gone};
use crate::leases::PodKey;

/// Names of decrypted images that a start is about to use.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashSet<String>>>);

/// The name of an image for one start, under which nothing is removed before this is dropped.
#[derive(Debug)]
pub(crate) struct DecryptedName {
    name: String,
    salt: String,
    under_way: UnderWay,
}

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DecryptedName {
    fn drop(&mut self) {
        self.under_way.lock().remove(&self.name);
    }
}

impl DecryptedName {
    pub(crate) fn as_str(&self) -> &str {
        &self.name
    }

    /// What makes it an image that nobody else can name.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("roadstead.start".to_owned(), self.salt.clone())])
    }
}

/// The repository of a provider's decrypted images. There is no such registry, and never will be (RFC 2606), so nobody
/// pulls anything under this name.
fn repository(provider: Address) -> String {
    format!("roadstead.invalid/{}", hex::encode(provider))
}

impl Engine {
    /// A name for an image that is decrypted for a start of one of a lease's pods.
    pub(crate) fn decrypted_name(&self, key: PodKey, pod: PodHash) -> DecryptedName {
        let mut salt = [0_u8; 32];
        rand::rng().fill_bytes(&mut salt);
        let mut number = [0_u8; 8];
        rand::rng().fill_bytes(&mut number);
        let repository = repository(self.owner.provider);
        let name = format!("{repository}:{}-{}", key.of(pod), hex::encode(number));
        let under_way = self.under_way.clone();
        under_way.lock().insert(name.clone());
        DecryptedName { name, salt: hex::encode(salt), under_way }
    }

    /// Loads the docker-archive of a decrypted image, in which it has `name`.
    pub(crate) async fn load_decrypted(
        &self,
        name: &DecryptedName,
        archive: std::fs::File,
    ) -> Result<Image, EngineError> {
        let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(archive), 256 << 10);
        let options = ImportImageOptionsBuilder::new().quiet(true).build();
        let refused = |why: String| EngineError::Image { image: name.name.clone(), why };
        self.docker
            .import_image_stream(options, stream, None)
            .try_for_each(|_progress| async { Ok(()) })
            .await
            .map_err(|err| refused(err.to_string()))?;
        let image = self.inspect(&name.name).await?;
        image.ok_or_else(|| refused("it was not loaded".into()))
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
        let repository = repository(self.owner.provider);
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
            for name in image.repo_tags.iter().filter(|name| name.starts_with(&repository)) {
                if self.under_way.lock().contains(name) {
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
