//! The images of pods: to have them, and who runs in them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bollard::{
    models::ContainerCreateBody,
    query_parameters::{
        CreateImageOptionsBuilder, DownloadFromContainerOptionsBuilder, ImportImageOptionsBuilder,
        ListImagesOptionsBuilder,
    },
};
use futures::{StreamExt, TryStreamExt};
use protocol::pod::{Digest, ImageRef, Label, Pod, Service, User};
use tokio_util::io::ReaderStream;

use super::{Engine, EngineError, is_missing};

/// What an image says of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    pub(super) id: String,
    pub(super) entrypoint: Vec<String>,
    user: String,
}

impl Engine {
    /// Has the images of `pod`, pulling those that are not here.
    pub(crate) async fn images(&self, pod: &Pod) -> Result<BTreeMap<Label, Image>, EngineError> {
        let mut images = BTreeMap::new();
        for (name, service) in pod.services() {
            images.insert(name.clone(), self.image(&service.image).await?);
        }
        Ok(images)
    }

    async fn image(&self, image: &ImageRef) -> Result<Image, EngineError> {
        let (name, digest) = match image {
            ImageRef::Pushed { id } => {
                let found = self.inspect(id.as_str()).await?;
                return found.ok_or_else(|| EngineError::NotPushed(id.to_string()));
            }
            ImageRef::Registry { digest, reference } => (format!("{reference}@{digest}"), digest),
        };
        if let Some(image) = self.inspect(&name).await? {
            return Ok(image);
        }
        let refused = |why: String| EngineError::Image { image: name.clone(), why };
        let options = CreateImageOptionsBuilder::new().from_image(&name).build();
        let pull = self.docker.create_image(Some(options), None, None);
        pull.try_for_each(|_progress| async { Ok(()) })
            .await
            .map_err(|err| refused(err.to_string()))?;
        let image = self.inspect(&name).await?;
        image.ok_or_else(|| refused(format!("what was pulled does not have the digest {digest}")))
    }

    async fn inspect(&self, name: &str) -> Result<Option<Image>, EngineError> {
        let found = match self.docker.inspect_image(name).await {
            Err(err) if is_missing(&err) => return Ok(None),
            found => found?,
        };
        let config = found.config.unwrap_or_default();
        Ok(Some(Image {
            id: found.id.unwrap_or_default(),
            entrypoint: config.entrypoint.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
        }))
    }

    /// Whether an image is here.
    pub(crate) async fn has_image(&self, id: &str) -> Result<bool, EngineError> {
        Ok(self.inspect(id).await?.is_some())
    }

    /// Of `images`, those that are not here.
    pub(crate) async fn gone(&self, images: BTreeSet<Digest>) -> Result<Vec<Digest>, EngineError> {
        let options = ListImagesOptionsBuilder::new().all(true).build();
        let listed = self.docker.list_images(Some(options)).await?;
        let listed: HashSet<String> = listed.into_iter().map(|image| image.id).collect();
        let mut gone = Vec::new();
        for image in images {
            // Not every image store lists an image by what it was pushed as.
            if !listed.contains(image.as_str()) && !self.has_image(image.as_str()).await? {
                gone.push(image);
            }
        }
        Ok(gone)
    }

    /// Loads a docker-archive and makes sure that it was image `id`.
    pub(crate) async fn load(&self, id: &str, archive: std::fs::File) -> Result<(), EngineError> {
        let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(archive), 256 << 10);
        let options = ImportImageOptionsBuilder::new().quiet(true).build();
        let refused = |why: String| EngineError::Image { image: id.to_owned(), why };
        self.docker
            .import_image_stream(options, stream, None)
            .try_for_each(|_progress| async { Ok(()) })
            .await
            .map_err(|err| refused(err.to_string()))?;
        match self.has_image(id).await? {
            true => Ok(()),
            false => Err(refused("what was loaded is another image".into())),
        }
    }

    /// Who a service runs as, in numbers.
    pub(super) async fn owner(
        &self,
        name: &Label,
        service: &Service,
        image: &Image,
    ) -> Result<(u32, u32), EngineError> {
        let user = service.user.as_ref().map_or(image.user.as_str(), User::as_str);
        if let Some(owner) = numeric_owner(user) {
            return Ok(owner);
        }
        let passwd = self.file_of(&image.id, "/etc/passwd").await?;
        let group = match has_named_group(user) {
            true => self.file_of(&image.id, "/etc/group").await?,
            false => String::new(),
        };
        let owner = named_owner(user, &passwd, &group);
        owner.ok_or_else(|| EngineError::User { service: name.clone(), user: user.to_owned() })
    }

    /// A file of an image, such as `/etc/passwd`, out of a container that is never started; nothing where there is none.
    async fn file_of(&self, image: &str, path: &str) -> Result<String, EngineError> {
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            cmd: Some(vec!["-".into()]),
            network_disabled: Some(true),
            ..Default::default()
        };
        let id = self.docker.create_container(None, body).await?.id;
        let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
        let tar = self.docker.download_from_container(&id, Some(options));
        let tar = tar.take(64).try_collect::<Vec<_>>().await;
        self.remove_containers(&[&id]).await?;
        let tar = match tar {
            Err(err) if is_missing(&err) => return Ok(String::new()),
            tar => tar?.concat(),
        };
        let mut text = String::new();
        let mut archive = tar::Archive::new(tar.as_slice());
        if let Some(Ok(entry)) = archive.entries().map_err(EngineError::Secrets)?.next() {
            let mut entry = std::io::Read::take(entry, 1 << 20);
            let _not_text = std::io::Read::read_to_string(&mut entry, &mut text);
        }
        Ok(text)
    }
}

pub(super) fn numeric_owner(user: &str) -> Option<(u32, u32)> {
    if user.is_empty() || user == "root" {
        return Some((0, 0));
    }
    let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

fn has_named_group(user: &str) -> bool {
    user.split_once(':').is_some_and(|(_, group)| group.parse::<u32>().is_err())
}

/// Who a user is that has a name, or a group with one, in an image with these `/etc/passwd` and `/etc/group`.
fn named_owner(user: &str, passwd: &str, groups: &str) -> Option<(u32, u32)> {
    fn line<'a>(text: &'a str, name: &str) -> Option<Vec<&'a str>> {
        let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        lines.find(|fields| fields.first() == Some(&name))
    }
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let known = line(passwd, name);
    let of = |field: usize| known.as_ref()?.get(field)?.parse().ok();
    let uid = name.parse().ok().or_else(|| of(2))?;
    let gid = match group {
        Some(group) => group.parse().ok().or_else(|| line(groups, group)?.get(2)?.parse().ok())?,
        None => of(3)?,
    };
    Some((uid, gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_in_numbers_need_no_image() {
        assert_eq!(numeric_owner(""), Some((0, 0)));
        assert_eq!(numeric_owner("root"), Some((0, 0)));
        assert_eq!(numeric_owner("65532"), Some((65_532, 0)));
        assert_eq!(numeric_owner("1000:1001"), Some((1_000, 1_001)));
        assert_eq!(numeric_owner("nobody"), None);
    }

    #[test]
    fn users_and_groups_with_names_are_looked_up() {
        let passwd = "root:x:0:0:root:/:/bin/sh\napp:x:1000:1001::/:\nodd:x:?:7\n";
        let groups = "root:x:0:\nstaff:x:50:app\n";
        let check = |user: &str, wanted| {
            assert_eq!(named_owner(user, passwd, groups), wanted, "{user}");
        };
        check("app", Some((1_000, 1_001)));
        check("app:7", Some((1_000, 7)));
        check("app:staff", Some((1_000, 50)));
        check("65532:staff", Some((65_532, 50)));
        check("odd", None);
        check("nobody", None);
        check("app:wheel", None);
        assert!(has_named_group("1:staff") && !has_named_group("app:1") && !has_named_group("app"));
    }
}
