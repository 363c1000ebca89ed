//! The images of pods: to have them, who runs in them, and to let go of those that nobody needs.
//!
//! The engine is given whole images and pulls none by itself. What it was given is written down, so that it is removed
//! again: any wallet may push images, and the worst of them fills the disk with those that no pod ever uses. They are
//! bounded in time and, all together, in size; an image that any container was made of stays.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use alloy::primitives::hex;
use bollard::{
    models::ContainerCreateBody,
    query_parameters::{
        DownloadFromContainerOptionsBuilder, ImportImageOptionsBuilder,
        ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder,
    },
};
use futures::{StreamExt, TryStreamExt};
use protocol::pod::{Digest, ImageRef, Label, Pod, Service, User};
use rand::RngCore;
use tokio_util::io::ReaderStream;

use super::{Engine, EngineError, is_missing};
use crate::{
    causes,
    registry::Pulled,
    screen::{Loadable, is_bearable},
    volumes::VolumeError,
};

/// For how long an image stays that no container is made of: for the next start, or the next version's common layers.
const LIFE: Duration = Duration::from_secs(86_400);

/// For how long one stays in any case: it was just pushed for a lease that is about to be opened.
const GRACE: Duration = Duration::from_secs(600);

/// What the names begin with under which the images of manifests are written down.
const OF: &str = "of-";

/// The label of a container out of which a file of its image is read.
const LOOK: &str = "roadstead.look";

/// Which images the engine was given: a file for each, whose age says when it was used, and one for each manifest that was
/// pulled, with the image that it led to.
#[derive(Debug, Clone)]
pub(super) struct Given {
    dir: PathBuf,
    /// What those that no container is made of may take.
    most: u64,
}

impl Given {
    pub(super) fn open(data: &Path, most: u64) -> io::Result<Self> {
        let dir = data.join("images");
        std::fs::create_dir_all(&dir)?;
        Ok(Self { dir, most })
    }

    fn path(&self, image: &str) -> PathBuf {
        self.dir.join(image.trim_start_matches("sha256:"))
    }

    /// The image is used, from now on if it was not.
    fn used(&self, image: &str) -> io::Result<()> {
        let file = std::fs::File::options().create(true).append(true).open(self.path(image))?;
        file.set_modified(SystemTime::now())
    }

    /// The image is used, if the engine was given it.
    fn touch(&self, image: &str) -> io::Result<()> {
        match self.has(image) {
            true => self.used(image),
            false => Ok(()),
        }
    }

    fn has(&self, image: &str) -> bool {
        self.path(image).exists()
    }

    fn manifest(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{OF}{}", digest.as_str().trim_start_matches("sha256:")))
    }

    /// The image that a manifest led to.
    fn of(&self, digest: &Digest) -> Option<String> {
        std::fs::read_to_string(self.manifest(digest)).ok()
    }

    /// The manifest leads to the image, if the engine was given that: nothing would take the way to another one away again.
    fn lead(&self, digest: &Digest, image: &str) -> io::Result<()> {
        match self.has(image) {
            true => crate::house::write(&self.manifest(digest), image.as_bytes()),
            false => Ok(()),
        }
    }

    /// All images with the time when they were used last, those first that were used longest ago.
    fn all(&self) -> io::Result<Vec<(SystemTime, String)>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.len() == 64 {
                all.push((entry.metadata()?.modified()?, format!("sha256:{name}")));
            }
        }
        all.sort();
        Ok(all)
    }

    /// The image is gone from the engine, and so are the ways to it.
    fn forget(&self, image: &str) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let leads = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(OF));
            if leads && std::fs::read_to_string(&path).is_ok_and(|to| to == image) {
                std::fs::remove_file(path)?;
            }
        }
        match std::fs::remove_file(self.path(image)) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _removed_or_gone => Ok(()),
        }
    }
}

/// Of images that no container is made of, oldest first, those that go: with their size, and for how long they were not used.
fn superfluous(unused: &[(String, u64, Duration)], most: u64) -> Vec<&str> {
    let mut size = unused.iter().fold(0_u64, |sum, (_, size, _)| sum.saturating_add(*size));
    let mut go = Vec::new();
    for (image, bytes, age) in unused {
        if *age > LIFE || (size > most && *age > GRACE) {
            size = size.saturating_sub(*bytes);
            go.push(image.as_str());
        }
    }
    go
}

/// What an image says of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    pub(super) id: String,
    pub(super) entrypoint: Vec<String>,
    /// Where it declares volumes.
    pub(super) volumes: Vec<String>,
    user: String,
    /// Whether it is there for a container that is made of it already, and for no other.
    pub(super) is_used_up: bool,
}

impl Engine {
    /// Has those images of `pod` that are not encrypted, pulling what is not here.
    pub(crate) async fn images(&self, pod: &Pod) -> Result<BTreeMap<Label, Image>, EngineError> {
        let mut images = BTreeMap::new();
        for (name, service) in pod.services() {
            if let Some(image) = self.image(&service.image).await? {
                images.insert(name.clone(), image);
            }
        }
        Ok(images)
    }

    async fn image(&self, image: &ImageRef) -> Result<Option<Image>, EngineError> {
        let (digest, reference) = match image {
            ImageRef::Encrypted { .. } => return Ok(None),
            ImageRef::Pushed { id } => {
                let found = self.inspect(id.as_str()).await?;
                self.given.touch(id.as_str()).map_err(VolumeError::Io)?;
                return found.map(Some).ok_or_else(|| EngineError::NotPushed(id.to_string()));
            }
            ImageRef::Registry { digest, reference } => (digest, reference),
        };
        if let Some(id) = self.given.of(digest)
            && let Some(image) = self.inspect(&id).await?
        {
            self.given.touch(&id).map_err(VolumeError::Io)?;
            return Ok(Some(image));
        }
        let name = format!("{reference}@{digest}");
        let refused = |why: String| EngineError::Image { image: name.clone(), why };
        let pulled = self.registries.pull(reference, digest).await;
        let Pulled { id, archive } = pulled.map_err(|err| refused(causes(&err)))?;
        if !self.has_image(id.as_str()).await? {
            self.load(id.as_str(), archive).await?;
        }
        self.given.lead(digest, id.as_str()).map_err(VolumeError::Io)?;
        let image = self.inspect(id.as_str()).await?;
        image.map(Some).ok_or_else(|| refused("the engine has it no more".into()))
    }

    pub(super) async fn inspect(&self, name: &str) -> Result<Option<Image>, EngineError> {
        let found = match self.docker.inspect_image(name).await {
            Err(err) if is_missing(&err) => return Ok(None),
            found => found?,
        };
        let config = found.config.unwrap_or_default();
        // Whatever its configuration was when it was looked through, this is what the engine goes by.
        let check = config.healthcheck.unwrap_or_default();
        let intervals = [check.interval, check.start_interval].into_iter().flatten();
        let volumes = config.volumes.unwrap_or_default();
        is_bearable(volumes.len(), intervals)
            .map_err(|err| EngineError::Image { image: name.to_owned(), why: err.to_string() })?;
        Ok(Some(Image {
            id: found.id.unwrap_or_default(),
            entrypoint: config.entrypoint.unwrap_or_default(),
            volumes,
            user: config.user.unwrap_or_default(),
            is_used_up: false,
        }))
    }

    /// Whether an image is here.
    pub(crate) async fn has_image(&self, id: &str) -> Result<bool, EngineError> {
        match self.docker.inspect_image(id).await {
            Err(err) if is_missing(&err) => Ok(false),
            found => Ok(found.map(|_image| true)?),
        }
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

    /// Gives the engine an image, which is called `name` in what is said of it.
    pub(super) async fn import(&self, name: &str, image: Loadable) -> Result<(), EngineError> {
        let Loadable { file, turn } = image;
        let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), 256 << 10);
        let options = ImportImageOptionsBuilder::new().quiet(true).build();
        let loaded = self
            .docker
            .import_image_stream(options, stream, None)
            .try_for_each(|_progress| async { Ok(()) })
            .await;
        drop(turn);
        loaded.map_err(|err| EngineError::Image { image: name.to_owned(), why: err.to_string() })
    }

    /// Gives the engine an image and makes sure that it was image `id`.
    pub(crate) async fn load(&self, id: &str, image: Loadable) -> Result<(), EngineError> {
        self.import(id, image).await?;
        match self.has_image(id).await? {
            true => Ok(self.given.used(id).map_err(VolumeError::Io)?),
            false => {
                let why = "what was loaded is another image".to_owned();
                Err(EngineError::Image { image: id.to_owned(), why })
            }
        }
    }

    /// Removes the containers of looks into images that broke off.
    pub(crate) async fn tidy_looks(&self) -> Result<(), EngineError> {
        let mut filters = self.mine();
        filters.entry("label".into()).or_default().push(LOOK.to_owned());
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        for summary in self.docker.list_containers(Some(options)).await? {
            let labels = summary.labels.unwrap_or_default();
            let is_over = labels.get(LOOK).is_some_and(|look| !self.under_way.has(look));
            if let Some(id) = summary.id.filter(|_id| is_over) {
                self.remove_containers(&[&id]).await?;
            }
        }
        Ok(())
    }

    /// Removes images that the engine was given and that nobody needs.
    pub(crate) async fn tidy_images(&self) -> Result<(), EngineError> {
        let deployed = match &self.swarm {
            Some(swarm) => self.images_in(swarm).await?,
            None => BTreeSet::new(),
        };
        let given = self.given.all().map_err(VolumeError::Io)?;
        if given.is_empty() {
            return Ok(());
        }
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let containers = self.docker.list_containers(Some(options)).await?;
        let used = containers.into_iter().filter_map(|c| c.image_id);
        let used: HashSet<String> = used.chain(deployed).collect();
        let options = ListImagesOptionsBuilder::new().build();
        let sizes = self.docker.list_images(Some(options)).await?.into_iter();
        let sizes: BTreeMap<String, u64> =
            sizes.map(|image| (image.id, u64::try_from(image.size).unwrap_or_default())).collect();
        let mut unused = Vec::new();
        for (at, image) in given {
            match sizes.get(&image) {
                _ if used.contains(&image) => self.given.used(&image).map_err(VolumeError::Io)?,
                // Somebody else removed it.
                None if !self.has_image(&image).await? => {
                    self.given.forget(&image).map_err(VolumeError::Io)?;
                }
                size => {
                    let size = size.copied().unwrap_or_default();
                    unused.push((image, size, at.elapsed().unwrap_or_default()));
                }
            }
        }
        for image in superfluous(&unused, self.given.most) {
            // Not by force: what has a name by now, or is used, is somebody's.
            let options = RemoveImageOptionsBuilder::new().build();
            match self.docker.remove_image(image, Some(options), None).await {
                Ok(_) => tracing::info!("removed image {image}, which no pod uses"),
                Err(err) if is_missing(&err) => (),
                Err(err) => {
                    tracing::debug!(error = causes(&err), "image {image} stays");
                    continue;
                }
            }
            self.forget_image(image).await;
            self.given.forget(image).map_err(VolumeError::Io)?;
        }
        Ok(())
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
        let mut number = [0_u8; 8];
        rand::rng().fill_bytes(&mut number);
        // Until this is dropped it is not taken for one that a look left which broke off.
        let look = self.under_way.begin(hex::encode(number));
        let labels = self.owner.labels().into_iter().chain([(LOOK, look.as_str().to_owned())]);
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            cmd: Some(vec!["-".into()]),
            network_disabled: Some(true),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).collect()),
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
            let mut entry = io::Read::take(entry, 1 << 20);
            let _not_text = io::Read::read_to_string(&mut entry, &mut text);
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
    fn images_that_nobody_needs_go_in_time() {
        let of = |image: &str, size: u64, age: Duration| (image.to_owned(), size, age);
        let old = LIFE + Duration::from_secs(1);
        let some = GRACE + Duration::from_secs(1);
        let images =
            [of("a", 5, old), of("b", 5, some), of("c", 5, some), of("d", 5, Duration::ZERO)];
        assert_eq!(superfluous(&images, 20), ["a"]);
        assert_eq!(superfluous(&images, 14), ["a", "b"]);
        assert_eq!(superfluous(&images, 0), ["a", "b", "c"]);
        assert_eq!(superfluous(&[], 0), [""; 0]);
    }

    #[test]
    fn what_the_engine_was_given_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let given = Given::open(folder.path(), 0).unwrap();
        let image = format!("sha256:{}", "a".repeat(64));
        let manifest: Digest = format!("sha256:{}", "b".repeat(64)).parse().unwrap();
        given.touch(&image).unwrap();
        assert_eq!(given.all().unwrap(), [], "an image of somebody else's was taken for ours");
        given.lead(&manifest, &image).unwrap();
        assert_eq!(given.of(&manifest), None, "nothing would ever remove it");
        given.used(&image).unwrap();
        given.lead(&manifest, &image).unwrap();
        let given = Given::open(folder.path(), 0).unwrap();
        assert_eq!(given.of(&manifest).as_ref(), Some(&image));
        assert_eq!(given.all().unwrap()[0].1, image);
        given.forget(&image).unwrap();
        assert_eq!((given.of(&manifest), given.all().unwrap()), (None, Vec::new()));
    }

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
