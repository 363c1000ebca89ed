//! Images that only their app's key opens: the key, what it encrypted, and the way of that to a provider.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bollard::Docker;
use futures::TryStreamExt as _;
use oci_client::{
    RegistryOperation, errors::OciDistributionError, manifest::OciDescriptor, secrets::RegistryAuth,
};
use protocol::pod::{Digest, ImageName, ImageRef};
use reqwest::header::HeaderValue;
use seal::{
    AppKey, AppPublicKey,
    image::{self, Layout, Sealed},
};
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;
use zeroize::Zeroizing;

use crate::{
    client::Client,
    images::{self, Blob},
    output,
    progress::Progress,
    settings::Settings,
    trust::{ImageKey, Trust},
};

/// The key's file in the home folder, where no other one is named.
const KEY: &str = "app.key";

/// What an encrypted image is called in a layout.
const NAME: &str = "encrypted";

/// How much of a layer is read at once.
const CHUNK: usize = 256 << 10;

/// The largest file of a key.
const MAX_KEY: u64 = 16 << 10;

/// What to do with encrypted images.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Make the key of an app, which opens its encrypted images
    ///
    /// It is a P-256 key in PEM (PKCS #8), readable for you alone, which skopeo and containerd take, too. Whoever has it
    /// can run the app's images; without it nobody can, so back it up.
    #[command(after_help = "Examples:\n  roadstead image key\n  roadstead image key shop/app.key")]
    Key {
        /// The file, which must not be there yet [default: app.key in the home folder]
        file: Option<PathBuf>,
    },
    /// Encrypt an image once, and upload it to a registry or write it to a folder
    ///
    /// What comes of it is what skopeo, containerd and CRI-O read: layers encrypted with ocicrypt, its configuration not.
    /// Passwords of registries are read where `docker login` writes them, if it keeps them in its file.
    #[command(
        after_help = "Examples:\n  roadstead image encrypt shop --to ghcr.io/acme/shop:1.4\n  roadstead image encrypt shop --layout ./shop && skopeo copy oci:./shop:encrypted docker://ghcr.io/acme/shop:1.4"
    )]
    Encrypt {
        /// An image of Docker's on this machine; or oci:FOLDER or oci:FOLDER:NAME, a folder in the OCI image layout
        image: String,
        /// The app's key [default: app.key in the home folder]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Upload it there
        #[arg(long, value_name = "IMAGE", required_unless_present = "layout")]
        to: Option<ImageName>,
        /// Add it to this folder in the OCI image layout, under the name `encrypted`
        #[arg(long, value_name = "FOLDER", conflicts_with = "to")]
        layout: Option<PathBuf>,
    },
}

/// Does what was asked.
pub(crate) async fn run(settings: &Settings, verb: &Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Key { file } => make_key(settings, file.as_deref()),
        Verb::Encrypt { image, key, to, layout } => {
            let key = read_key(&settings.home, key.as_deref())?.0.public();
            match (to, layout) {
                (Some(to), _) => {
                    let folder = tempfile::tempdir()?;
                    let layout = Layout::create(folder.path())?;
                    let sealed = encrypt_image(image, &key, &layout).await?;
                    upload(&layout, &sealed, to).await?;
                    show_sealed(settings, &sealed, &to.to_string())
                }
                (None, Some(folder)) => {
                    let layout = Layout::create(folder)
                        .with_context(|| format!("{} cannot be used", folder.display()))?;
                    let sealed = encrypt_image(image, &key, &layout).await?;
                    show_sealed(settings, &sealed, &format!("oci:{}:{NAME}", folder.display()))
                }
                (None, None) => bail!("say --to IMAGE or --layout FOLDER"),
            }
        }
    }
}

fn show_sealed(settings: &Settings, sealed: &Sealed, at: &str) -> anyhow::Result<()> {
    let value = serde_json::json!({
        "image": at, "manifest": sealed.manifest.to_string(), "plain": sealed.plain.to_string(),
    });
    output::show(settings.json, &value, || {
        format!("{at} is encrypted, as {}\ndecrypted it is {}", sealed.manifest, sealed.plain)
    })
}

/// Encrypts an image that a person names into a layout, where it is called [`NAME`].
async fn encrypt_image(image: &str, key: &AppPublicKey, into: &Layout) -> anyhow::Result<Sealed> {
    let (key, into) = (*key, into.clone());
    let failed = || format!("image {image} was not encrypted");
    if let Some(place) = image.strip_prefix("oci:") {
        let (folder, name) = match place.rsplit_once(':') {
            Some((folder, name)) if !name.contains('/') => (folder, Some(name.to_owned())),
            Some(_) | None => (place, None),
        };
        let from = Layout::open(folder);
        let encrypting = move || image::encrypt(&from, name.as_deref(), &key, &into, NAME);
        return tokio::task::spawn_blocking(encrypting).await?.with_context(failed);
    }
    let docker = images::docker().await?;
    let found = images::inspect(&docker, image).await?;
    ensure!(found.is_some(), "Docker on this machine has no image {image}; build or pull it first");
    let saved = images::save(&docker, image).await?;
    let encrypting = move || encrypt(saved.reopen()?, &into, &key, NAME);
    tokio::task::spawn_blocking(encrypting).await?.with_context(failed)
}

/// Uploads the encrypted image of a layout.
async fn upload(layout: &Layout, sealed: &Sealed, to: &ImageName) -> anyhow::Result<()> {
    ensure!(to.digest.is_none(), "--to {to}: an upload gets its digest; name a tag");
    let (client, reference) = registry(to)?;
    let auth = password(reference.resolve_registry())?;
    let wrong = || format!("{to} could not be uploaded");
    client.auth(&reference, &auth, RegistryOperation::Push).await.with_context(wrong)?;
    let blobs = layout.path().join("blobs/sha256");
    let manifest = fs::read(blobs.join(sealed.manifest.hex()))?;
    for (part, size) in image::parts(&manifest)? {
        let digest = part.to_string();
        if client.blob_exists(&reference, &digest).await.with_context(wrong)? {
            continue;
        }
        let file = tokio::fs::File::open(blobs.join(part.hex())).await?;
        let bytes = ReaderStream::with_capacity(file, CHUNK).map_err(OciDistributionError::from);
        client
            .push_blob_stream(&reference, bytes, &digest, Some(size))
            .await
            .with_context(wrong)?;
    }
    let kind = HeaderValue::from_static("application/vnd.oci.image.manifest.v1+json");
    client.push_manifest_raw(&reference, manifest, kind).await.with_context(wrong)?;
    Ok(())
}

/// The password that `docker login` has written down for a registry, if it has.
fn password(registry: &str) -> anyhow::Result<RegistryAuth> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(std::env::home_dir()?.join(".docker")));
    let Some(path) = folder.map(|folder| folder.join("config.json")) else {
        return Ok(RegistryAuth::Anonymous);
    };
    match fs::read(&path) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(RegistryAuth::Anonymous),
        text => {
            let text = text.with_context(|| format!("{} cannot be read", path.display()))?;
            login(&Zeroizing::new(text), registry)
                .with_context(|| format!("{} is not what `docker login` writes", path.display()))
        }
    }
}

/// What Docker's config.json has for a registry.
fn login(config: &[u8], registry: &str) -> anyhow::Result<RegistryAuth> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        auths: BTreeMap<String, Login>,
    }
    #[derive(Deserialize)]
    struct Login {
        auth: Option<String>,
    }
    // An error of serde's may show what it read.
    let config: Option<Config> = serde_json::from_slice(config).ok();
    let mut auths = config.context("it cannot be read")?.auths;
    // Docker Hub goes by the name of its first API.
    let hub = ["index.docker.io", "docker.io"].contains(&registry);
    let name = if hub { "https://index.docker.io/v1/" } else { registry };
    let Some(auth) = auths.remove(name).and_then(|login| login.auth) else {
        return Ok(RegistryAuth::Anonymous);
    };
    let decoded = BASE64_STANDARD.decode(auth).ok().map(Zeroizing::new);
    let pair = decoded.as_ref().and_then(|bytes| std::str::from_utf8(bytes).ok()?.split_once(':'));
    let (user, password) = pair.with_context(|| {
        format!(
            "its auth of {name} is not user and secret in base64; log in with `docker login` anew"
        )
    })?;
    Ok(RegistryAuth::Basic(user.to_owned(), password.to_owned()))
}

/// A client for the registry of an image.
pub(crate) fn registry(
    name: &ImageName,
) -> anyhow::Result<(oci_client::Client, oci_client::Reference)> {
    let reference: oci_client::Reference = name.to_string().parse()?;
    let registry = reference.resolve_registry().to_owned();
    let host = registry.rsplit_once(':').map_or(registry.as_str(), |(host, _port)| host);
    // As Docker does: a registry on this machine has no certificate.
    let local = host == "localhost" || host.starts_with("127.");
    let plain = if local { vec![registry] } else { Vec::new() };
    let client = oci_client::Client::new(oci_client::client::ClientConfig {
        protocol: oci_client::client::ClientProtocol::HttpsExcept(plain),
        connect_timeout: Some(Duration::from_secs(10)),
        read_timeout: Some(Duration::from_secs(20)),
        use_monolithic_push: true,
        ..Default::default()
    });
    Ok((client, reference))
}

fn make_key(settings: &Settings, file: Option<&Path>) -> anyhow::Result<()> {
    let path = file.map_or_else(|| settings.home.join(KEY), Path::to_owned);
    let cannot = || format!("{} cannot be made", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(cannot)?;
    }
    let key = AppKey::generate();
    // Never over another one: what that one encrypted nobody would open any more.
    let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
    let mut file = file.with_context(cannot)?;
    file.write_all(key.to_pem().as_bytes()).and_then(|()| file.sync_all()).with_context(cannot)?;
    let value = serde_json::json!({ "file": path, "public": key.public().to_pem() });
    output::show(settings.json, &value, || {
        format!(
            "{} holds the app's key; back it up, and show it to nobody\n{}",
            path.display(),
            key.public().to_pem().trim_end()
        )
    })
}

/// The key of an app, where it was read, and who may have it.
#[derive(Debug, Clone)]
pub(crate) struct KeyFile {
    /// For making images; who else gets it, `sealed` says.
    key: AppKey,
    pub(crate) sealed: ImageKey,
    pub(crate) path: PathBuf,
}

impl KeyFile {
    /// Reads a key: the one at `path`, or else the one in the home folder. Who is trusted by `trust` may have it.
    pub(crate) fn read(home: &Path, path: Option<&Path>, trust: Trust) -> anyhow::Result<Self> {
        let (key, path) = read_key(home, path)?;
        Ok(Self { sealed: ImageKey::new(key.clone(), trust), key, path })
    }
}

fn read_key(home: &Path, path: Option<&Path>) -> anyhow::Result<(AppKey, PathBuf)> {
    let path = path.map_or_else(|| home.join(KEY), Path::to_owned);
    let path = std::path::absolute(&path).unwrap_or(path);
    let read = fs::metadata(&path).and_then(|meta| match meta.len() <= MAX_KEY {
        true => fs::read_to_string(&path),
        false => Err(std::io::ErrorKind::FileTooLarge.into()),
    });
    let pem = Zeroizing::new(read.with_context(|| {
        let path = path.display();
        format!("the app's key {path} cannot be read; `roadstead image key {path}` makes one")
    })?);
    let key = AppKey::from_pem(&pem).with_context(|| path.display().to_string())?;
    Ok((key, path))
}

/// What was encrypted on this machine, in the home folder. All of it can be lost: an image is encrypted anew then, and is
/// another one for providers.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    layout: Layout,
    index: PathBuf,
}

/// An image in the store, by what it was made of and for.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    manifest: image::Digest,
    plain: image::Digest,
}

impl Store {
    pub(crate) fn open(home: &Path) -> anyhow::Result<Self> {
        let folder = home.join("images");
        let layout = Layout::create(&folder)
            .with_context(|| format!("{} cannot be used", folder.display()))?;
        Ok(Self { layout, index: folder.join("encrypted.json") })
    }

    fn entries(&self) -> anyhow::Result<BTreeMap<String, Entry>> {
        match fs::read(&self.index) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| {
                format!("{} is damaged, and can be removed", self.index.display())
            }),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(err) => {
                Err(err).with_context(|| format!("{} cannot be read", self.index.display()))
            }
        }
    }

    fn add(&self, name: String, sealed: Sealed) -> anyhow::Result<()> {
        let mut entries = self.entries()?;
        entries.insert(name, Entry { manifest: sealed.manifest, plain: sealed.plain });
        let failed = || format!("{} could not be written", self.index.display());
        let folder = self.index.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder).with_context(failed)?;
        serde_json::to_writer_pretty(&mut file, &entries)?;
        file.persist(&self.index).map_err(|err| err.error).with_context(failed)?;
        Ok(())
    }

    /// An image that was made on this machine, encrypted: as it was the last time, or anew.
    pub(crate) async fn local(
        &self,
        docker: &Docker,
        id: &Digest,
        KeyFile { key, .. }: &KeyFile,
    ) -> anyhow::Result<ImageRef> {
        let name = format!("{id}.{}", fingerprint(&key.public()));
        let known = self.entries()?.remove(&name).filter(|entry| self.has(&entry.manifest));
        let sealed = match known {
            Some(Entry { manifest, plain }) => Sealed { manifest, plain },
            None => {
                let saved = images::save(docker, id.as_str()).await?;
                let (layout, public, tag) = (self.layout.clone(), key.public(), name.clone());
                let encrypting = move || encrypt(saved.reopen()?, &layout, &public, &tag);
                let sealed = tokio::task::spawn_blocking(encrypting).await?;
                let sealed = sealed.with_context(|| format!("image {id} was not encrypted"))?;
                self.add(name, sealed)?;
                sealed
            }
        };
        let (manifest, plain) = (sealed.manifest.to_string(), sealed.plain.to_string());
        Ok(ImageRef::Encrypted {
            manifest: manifest.parse()?,
            plain: plain.parse()?,
            reference: None,
        })
    }

    /// An image that is encrypted in its registry. What it is takes reading all of it, once.
    pub(crate) async fn remote(
        &self,
        name: &ImageName,
        digest: &Digest,
        KeyFile { key, .. }: &KeyFile,
    ) -> anyhow::Result<ImageRef> {
        let stored = format!("{digest}.{}", fingerprint(&key.public()));
        let plain = match self.entries()?.remove(&stored) {
            Some(Entry { plain, .. }) => plain,
            None => {
                let plain = self.identify(name, digest, key).await?;
                self.add(stored, Sealed { manifest: digest.as_str().parse()?, plain })?;
                plain
            }
        };
        Ok(ImageRef::Encrypted {
            manifest: digest.clone(),
            plain: plain.to_string().parse()?,
            reference: Some(name.repository.clone()),
        })
    }

    async fn identify(
        &self,
        name: &ImageName,
        digest: &Digest,
        key: &AppKey,
    ) -> anyhow::Result<image::Digest> {
        let pinned = ImageName { digest: Some(digest.clone()), ..name.clone() };
        let (client, reference) = registry(&pinned)?;
        let kinds = ["application/vnd.oci.image.manifest.v1+json"];
        let anonymous = RegistryAuth::Anonymous;
        let (manifest, _digest) = client
            .pull_manifest_raw(&reference, &anonymous, &kinds)
            .await
            .context("its manifest cannot be had; providers pull without a password")?;
        ensure!(
            image::is_encrypted(&manifest),
            "its registry has it in plain for everybody: encrypt it (`roadstead image encrypt {name} --to IMAGE`), or \
             leave the service out of x-roadstead.encrypt.services"
        );
        image::fits(&manifest, key)?;
        let folder = tempfile::tempdir_in(self.layout.path())?;
        for (part, size) in image::parts(&manifest)? {
            let descriptor = OciDescriptor {
                digest: part.to_string(),
                size: size.try_into()?,
                ..OciDescriptor::default()
            };
            let mut file = tokio::fs::File::create(folder.path().join(part.hex())).await?;
            let pulled = client.pull_blob(&reference, &descriptor, &mut file).await;
            pulled.with_context(|| format!("its part {part} cannot be had"))?;
        }
        let key = key.clone();
        let identifying = move || image::identify(&manifest, &Folder(folder), &key);
        Ok(tokio::task::spawn_blocking(identifying).await??)
    }

    fn blob(&self, digest: &image::Digest) -> PathBuf {
        self.layout.path().join("blobs/sha256").join(digest.hex())
    }

    /// The blobs of an image, its manifest last; nothing where one is missing.
    fn parts(&self, manifest: &image::Digest) -> anyhow::Result<Option<Vec<Blob>>> {
        let Ok(bytes) = fs::read(self.blob(manifest)) else { return Ok(None) };
        let parts = image::parts(&bytes)?;
        let layers = 1..parts.len();
        let manifest = [(*manifest, bytes.len() as u64)];
        let blobs = parts.into_iter().chain(manifest).enumerate().map(|(index, (digest, size))| {
            let path = self.blob(&digest);
            let there = fs::metadata(&path).is_ok_and(|meta| meta.len() == size);
            there.then(|| Blob::file(digest.to_string(), path, size, layers.contains(&index)))
        });
        Ok(blobs.collect())
    }

    fn has(&self, manifest: &image::Digest) -> bool {
        self.parts(manifest).is_ok_and(|parts| parts.is_some())
    }

    /// Sends those parts of an encrypted image that a provider lacks.
    pub(crate) async fn push(
        &self,
        client: &Client,
        manifest: &Digest,
        progress: &dyn Progress,
    ) -> anyhow::Result<()> {
        let parts = self.parts(&manifest.as_str().parse()?)?;
        let parts = parts.with_context(|| {
            format!("it is not whole in {}; deploy it again", self.layout.path().display())
        })?;
        images::send(client, parts.iter(), manifest.as_str(), progress).await
    }
}

/// Blobs that were downloaded.
struct Folder(tempfile::TempDir);

impl image::Blobs for Folder {
    fn open(&self, digest: &image::Digest) -> std::io::Result<Box<dyn std::io::Read + '_>> {
        Ok(Box::new(File::open(self.0.path().join(digest.hex()))?))
    }
}

/// Encrypts what `docker save` wrote; blocks.
fn encrypt(saved: File, into: &Layout, public: &AppPublicKey, tag: &str) -> anyhow::Result<Sealed> {
    // Beside the store: it takes as much room, and is plain for as long as this takes.
    let folder = tempfile::Builder::new().prefix("plain-").tempdir_in(into.path())?;
    let plain = Layout::create(folder.path())?;
    image::import_docker_archive(saved, &plain, "plain")?;
    Ok(image::encrypt(&plain, Some("plain"), public, into, tag)?)
}

/// Tells keys apart in names.
fn fingerprint(key: &AppPublicKey) -> String {
    let digest = image::Digest::of(key.to_pem().as_bytes()).hex();
    digest.get(..16).unwrap_or(&digest).to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn passwords_are_those_of_docker_login() {
        // user:word, and one that is no pair.
        let config = br#"{ "auths": {
            "ghcr.io": { "auth": "dXNlcjp3b3Jk" },
            "https://index.docker.io/v1/": { "auth": "aHViOndvcmQ=" },
            "helped.example": {},
            "broken.example": { "auth": "d29yZA==" }
        }, "credsStore": "desktop" }"#;
        let user = |registry: &str| match login(config, registry).unwrap() {
            RegistryAuth::Basic(user, password) => {
                assert_eq!(password, "word");
                Some(user)
            }
            RegistryAuth::Anonymous | RegistryAuth::Bearer(_) => None,
        };
        assert_eq!(user("ghcr.io").as_deref(), Some("user"));
        assert_eq!(user("index.docker.io").as_deref(), Some("hub"));
        assert_eq!(user("helped.example"), None);
        assert_eq!(user("quay.io"), None);
        let err = login(config, "broken.example").unwrap_err().to_string();
        assert!(err.contains("broken.example") && !err.contains("word"), "{err}");
        assert!(login(b"no JSON", "ghcr.io").is_err());
    }

    #[test]
    fn a_key_is_its_owners_and_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            home: folder.path().to_owned(),
            rpc: String::new(),
            deployment: None,
            market: None,
            wallet: PathBuf::new(),
            passphrase_file: None,
            json: true,
        };
        assert!(read_key(folder.path(), None).is_err());
        make_key(&settings, None).unwrap();
        let (made, path) = read_key(folder.path(), None).unwrap();
        assert_eq!(path, folder.path().join(KEY));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let err = format!("{:#}", make_key(&settings, None).unwrap_err());
        assert!(err.contains("app.key cannot be made"), "{err}");
        let same = read_key(folder.path(), None).unwrap().0.public();
        assert_eq!(same, made.public());
        fs::write(folder.path().join("other"), "no key").unwrap();
        let err = read_key(folder.path(), Some(&folder.path().join("other"))).unwrap_err();
        assert!(format!("{err:#}").contains("no app key"), "{err:#}");
    }
}
