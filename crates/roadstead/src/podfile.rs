//! From a Compose file to a pod: its variables, its images' digests, its secrets.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, bail, ensure};
use bollard::{Docker, models::ImageInspect};
use edge::Certificate;
use protocol::pod::{
    Digest, Image, ImageName, ImageRef, Label, Name, Parsed, Pod, ResolveError, SecretSource,
    Surroundings, Tls, Wishes, limits,
};
use seal::Secrets;
use zeroize::Zeroizing;

use crate::{
    cli,
    encrypt::{self, KeyFile, Store},
    images, output,
    trust::{PodSecrets, Trust},
};

/// What is looked for where no file is named, in the order in which Compose looks.
const NAMES: [&str; 4] =
    ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

/// A pod file, read and checked.
#[derive(Debug)]
pub(crate) struct PodFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What is in it.
    pub(crate) parsed: Parsed,
    here: Here,
}

/// A pod with all that a deploy of it needs.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The pod.
    pub(crate) pod: Pod,
    /// What its publisher wants of providers.
    pub(crate) wishes: Wishes,
    /// What its secrets are.
    pub(crate) secrets: PodSecrets,
    /// The key of its encrypted images, where it has some, and what it encrypted.
    pub(crate) encrypted: Option<(KeyFile, Store)>,
    /// What was assumed.
    pub(crate) notes: Vec<String>,
}

/// The environment and the files beside the pod file.
#[derive(Debug)]
struct Here {
    folder: PathBuf,
    variables: BTreeMap<String, String>,
}

impl Ready {
    /// The key of its encrypted images.
    pub(crate) fn key(&self) -> Option<KeyFile> {
        self.encrypted.as_ref().map(|(key, _store)| key.clone())
    }
}

impl Surroundings for Here {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn read(&self, path: &str) -> Result<String, String> {
        std::fs::read_to_string(self.folder.join(path)).map_err(|err| err.to_string())
    }
}

impl Here {
    /// The environment of this process, and under it the `.env` file that Compose reads.
    fn of(folder: PathBuf, environment: BTreeMap<String, String>) -> anyhow::Result<Self> {
        let path = folder.join(".env");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(err) => {
                return Err(err).with_context(|| format!("{} cannot be read", path.display()));
            }
        };
        let mut variables = environment;
        let known = |name: &str| variables.get(name).cloned();
        let more = protocol::pod::dot_env(&text, &known)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        // The last of several wins, and the environment over all of them.
        let more: BTreeMap<_, _> =
            more.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        for (name, value) in more {
            variables.entry(name).or_insert(value);
        }
        Ok(Self { folder, variables })
    }
}

impl PodFile {
    /// Reads the file that was chosen, with its profiles.
    pub(crate) fn chosen(file: &cli::PodFile) -> anyhow::Result<Self> {
        Self::read_with(file.file.as_deref(), &file.profiles)
    }

    /// Reads `file`, or the one that is in the current folder.
    pub(crate) fn read(file: Option<&Path>) -> anyhow::Result<Self> {
        Self::read_with(file, &[])
    }

    fn read_with(file: Option<&Path>, profiles: &[String]) -> anyhow::Result<Self> {
        let path = match file {
            Some(path) => path.to_owned(),
            None => {
                NAMES.iter().map(PathBuf::from).find(|path| path.exists()).with_context(|| {
                    format!("there is no {} here; `roadstead init` writes one", NAMES.join(", "))
                })?
            }
        };
        let mut environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        if !profiles.is_empty() {
            environment.insert("COMPOSE_PROFILES".into(), profiles.join(","));
        }
        Self::read_in(path, environment)
    }

    fn read_in(path: PathBuf, environment: BTreeMap<String, String>) -> anyhow::Result<Self> {
        let cannot = || format!("{} cannot be read", path.display());
        let size = std::fs::metadata(&path).with_context(cannot)?.len();
        let most = limits::FILE;
        ensure!(size <= most as u64, "{} is larger than {most} bytes", path.display());
        let yaml = std::fs::read_to_string(&path).with_context(cannot)?;
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let here = Here::of(folder, environment)?;
        let parsed = Pod::from_compose(&yaml, &here)
            .with_context(|| format!("{} cannot be deployed", path.display()))?;
        Ok(Self { path, parsed, here })
    }

    /// The name under which its app goes where none is given: its folder's, as in Compose.
    pub(crate) fn app(&self) -> String {
        let folder = std::path::absolute(&self.path).ok();
        let name = folder.as_deref().and_then(Path::parent).and_then(Path::file_name);
        name.map_or_else(|| "app".to_owned(), |name| name.to_string_lossy().into_owned())
    }

    /// The pod as far as it is known without its images' digests: to be looked at, not to be hashed.
    pub(crate) fn sketch(&self) -> anyhow::Result<Pod> {
        let unknown: Digest = format!("sha256:{}", "0".repeat(64)).parse()?;
        let sketch = self
            .parsed
            .clone()
            .resolve(|_service, _image| anyhow::Ok(ImageRef::Pushed { id: unknown.clone() }));
        sketch.map_err(resolve_error)
    }

    /// Whom its publisher trusts with the pod.
    pub(crate) fn trust(&self) -> anyhow::Result<Trust> {
        Trust::of(self.parsed.wishes().attested.as_ref(), &self.here.folder)
    }

    /// The file with the key of its encrypted images, if it names one.
    pub(crate) fn key_path(&self) -> Option<PathBuf> {
        let path = self.parsed.encrypt()?.key.as_ref()?;
        Some(self.here.folder.join(path))
    }

    /// The key of its encrypted images and where what it encrypts is kept in `home`, if any image is to be encrypted.
    fn encrypted(&self, home: &Path) -> anyhow::Result<Option<(KeyFile, Store)>> {
        if self.parsed.encrypt().is_none() {
            return Ok(None);
        }
        let key = KeyFile::read(home, self.key_path().as_deref(), self.trust()?);
        let key = key.context("x-roadstead.encrypt.key")?;
        Ok(Some((key, Store::open(home)?)))
    }

    /// The pod, with the digests that its images have now. What is encrypted is kept in `home`.
    pub(crate) async fn pod(&self, home: &Path) -> anyhow::Result<(Pod, Vec<String>)> {
        self.resolved(self.encrypted(home)?.as_ref()).await
    }

    async fn resolved(
        &self,
        encrypted: Option<&(KeyFile, Store)>,
    ) -> anyhow::Result<(Pod, Vec<String>)> {
        let mut notes = self.parsed.notes().to_vec();
        let mut found: BTreeMap<Label, ImageRef> = BTreeMap::new();
        let docker = images::docker().await;
        for (service, image) in self.parsed.images() {
            let encrypted = encrypted.filter(|_| image.encrypted);
            if image.name.digest.is_some() && encrypted.is_none() {
                continue;
            }
            // What services share is looked for once: a tag may move between two looks.
            let same = self.parsed.images().iter().find(|(_, other)| *other == image);
            if let Some(same) = same.and_then(|(first, _)| found.get(first)) {
                let same = same.clone();
                found.insert(service.clone(), same);
                continue;
            }
            let found_one = async {
                let (found, note) = find(image, docker.as_ref()).await?;
                match encrypted {
                    Some((key, store)) => {
                        seal(docker.as_ref(), &image.name, found, key, store).await
                    }
                    None => Ok((found, note)),
                }
            };
            let (image, note) = found_one
                .await
                .with_context(|| format!("services.{service}.image, {}", image.name))?;
            notes.extend(note.map(|note| format!("services.{service}.image: {note}")));
            found.insert(service.clone(), image);
        }
        let pod = self.parsed.clone().resolve(|service, _image| {
            found.get(service).cloned().context("its image was not looked for")
        });
        Ok((pod.map_err(resolve_error)?, notes))
    }

    /// Looks at the certificates that the file brings for its hosts: those that visitors would refuse are refused here.
    pub(crate) fn certificates(&self) -> anyhow::Result<()> {
        let sketch = self.sketch()?;
        for (host, tls) in sketch.tls() {
            let Tls::Own { certificate, key } = tls else { continue };
            let secret = |name: &Name| match self.parsed.secrets().get(name) {
                Some(source) => self.secret(name, source),
                None => bail!("secrets.{name} is not there"),
            };
            let (chain, key) = (secret(certificate)?, secret(key)?);
            let now = SystemTime::now();
            Certificate::for_host(host.as_str(), &chain, &key, now)
                .with_context(|| format!("x-roadstead.tls[{:?}] cannot be used", host.as_str()))?;
        }
        Ok(())
    }

    /// All that a deploy needs. What is encrypted is kept in `home`.
    pub(crate) async fn ready(&self, home: &Path) -> anyhow::Result<Ready> {
        self.certificates()?;
        let secrets = PodSecrets::new(self.secrets()?, self.trust()?);
        let encrypted = self.encrypted(home)?;
        let (pod, notes) = self.resolved(encrypted.as_ref()).await?;
        Ok(Ready { pod, wishes: self.parsed.wishes().clone(), secrets, encrypted, notes })
    }

    fn secrets(&self) -> anyhow::Result<Secrets> {
        let mut secrets = Secrets::default();
        for (name, source) in self.parsed.secrets() {
            secrets.0.insert(name.to_string(), self.secret(name, source)?);
        }
        Ok(secrets)
    }

    fn secret(&self, name: &Name, source: &SecretSource) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        match source {
            SecretSource::File(file) => {
                let path = self.here.folder.join(file);
                std::fs::read(&path).map(Zeroizing::new).with_context(|| {
                    format!("secrets.{name}.file: {} cannot be read", path.display())
                })
            }
            SecretSource::Environment(variable) => {
                let value = self.here.variables.get(variable).with_context(|| {
                    format!("secrets.{name}.environment: {variable} is not set; export it, or put it into .env")
                })?;
                Ok(Zeroizing::new(value.clone().into_bytes()))
            }
        }
    }
}

/// What both say of an image, without the words that an anyhow chain has anyway.
fn resolve_error(err: ResolveError<anyhow::Error>) -> anyhow::Error {
    match err {
        ResolveError::Image { service, image, source } => {
            source.context(format!("services.{service}.image, {image}"))
        }
        ResolveError::Invalid(errors) => anyhow::Error::new(errors),
    }
}

/// What an image is now. One that Docker has and that no registry knows was made on this machine, and is pushed; all
/// others are asked for at their registry, whose digest the provider pulls.
pub(crate) async fn find(
    image: &Image,
    docker: Result<&Docker, &anyhow::Error>,
) -> anyhow::Result<(ImageRef, Option<String>)> {
    if let Some(digest) = &image.name.digest {
        let reference = image.name.repository.clone();
        return Ok((ImageRef::Registry { digest: digest.clone(), reference }, None));
    }
    let local = match docker {
        Ok(docker) => images::inspect(docker, &image.name.to_string()).await,
        Err(err) => Err(anyhow::Error::msg(output::causes(err))),
    };
    if image.built {
        let local = local?.with_context(
            || "it has `build:` and is not in Docker; build it with `docker compose build`",
        )?;
        return Ok((pushed(docker, &local).await?, None));
    }
    if let Ok(Some(local)) = &local
        && local.repo_digests.as_ref().is_none_or(Vec::is_empty)
    {
        let note = "it was made on this machine and is sent to the provider".to_owned();
        return Ok((pushed(docker, local).await?, Some(note)));
    }
    match (registry_digest(&image.name).await, local) {
        (Ok(digest), _) => {
            Ok((ImageRef::Registry { digest, reference: image.name.repository.clone() }, None))
        }
        // The containerd store gives every image a digest, so that only the registry tells which ones were made here.
        (Err(_), Ok(Some(local))) if local.descriptor.is_some() => {
            let note = "its registry does not have it; the one on this machine is sent".to_owned();
            Ok((pushed(docker, &local).await?, Some(note)))
        }
        (Err(err), Ok(_)) => Err(err.context("it was not made on this machine")),
        (Err(err), Err(docker)) => {
            Err(err
                .context(format!("whether it was made on this machine is not known ({docker:#})")))
        }
    }
}

/// An image that was found, encrypted for `key`.
async fn seal(
    docker: Result<&Docker, &anyhow::Error>,
    name: &ImageName,
    found: ImageRef,
    key: &KeyFile,
    store: &Store,
) -> anyhow::Result<(ImageRef, Option<String>)> {
    match found {
        ImageRef::Pushed { id } => {
            let Ok(docker) = docker else { bail!("Docker is gone") };
            let note = "it is encrypted, and sent to the provider".to_owned();
            Ok((store.local(docker, &id, key).await?, Some(note)))
        }
        ImageRef::Registry { digest, .. } => Ok((store.remote(name, &digest, key).await?, None)),
        found @ ImageRef::Encrypted { .. } => Ok((found, None)),
    }
}

async fn pushed(
    docker: Result<&Docker, &anyhow::Error>,
    image: &ImageInspect,
) -> anyhow::Result<ImageRef> {
    let Ok(docker) = docker else { bail!("Docker is gone") };
    Ok(ImageRef::Pushed { id: images::config_digest(docker, image).await?.parse()? })
}

async fn registry_digest(name: &ImageName) -> anyhow::Result<Digest> {
    let (client, reference) = encrypt::registry(name)?;
    let registry = reference.resolve_registry();
    let anonymous = oci_client::secrets::RegistryAuth::Anonymous;
    let digest = client.fetch_manifest_digest(&reference, &anonymous).await.with_context(|| {
        format!("{registry} does not give its digest; providers pull without a password")
    })?;
    Ok(digest.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn write(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn read(folder: &Path, environment: &[(&str, &str)]) -> anyhow::Result<PodFile> {
        let pairs = environment.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        PodFile::read_in(folder.join("compose.yaml"), pairs.collect())
    }

    #[tokio::test]
    async fn variables_and_secrets_come_from_beside_the_file() {
        let compose = format!(
            "services: {{ web: {{ image: 'app@{DIGEST}', environment: {{ A: '${{A}}', B: '${{B}}' }}, secrets: [key, word] }} }}\n\
             secrets: {{ key: {{ file: ./key.bin }}, word: {{ environment: WORD }} }}"
        );
        let folder = write(&[
            ("compose.yaml", &compose),
            (".env", "A=file\nB='from file'\nB=last\nWORD=${A}fish"),
            ("key.bin", "sword\n"),
        ]);
        let file = read(folder.path(), &[("A", "env")]).unwrap();
        let ready = file.ready(folder.path()).await.unwrap();
        let json = String::from_utf8(ready.pod.canonical()).unwrap();
        assert!(json.contains(r#""A":"env""#) && json.contains(r#""B":"last""#), "{json}");
        let secrets = file.secrets().unwrap();
        assert_eq!(secrets.0["key"].as_slice(), b"sword\n");
        assert_eq!(secrets.0["word"].as_slice(), b"envfish");
        assert!(!ready.secrets.is_empty() && *ready.secrets.trust() == Trust::Listed);
        assert_eq!(file.sketch().unwrap(), ready.pod);
        let name = folder.path().file_name().unwrap().to_string_lossy();
        assert_eq!(file.app(), name);
    }

    #[test]
    fn a_certificate_that_cannot_be_used_is_refused() {
        let pair = |host: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
            (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
        };
        let compose = format!(
            "services: {{ web: {{ image: 'app@{DIGEST}', expose: [80] }} }}\n\
             secrets: {{ chain: {{ file: ./chain.pem }}, key: {{ file: ./key.pem }} }}\n\
             x-roadstead: {{ ingress: {{ a.example.org: 'web:80' }}, tls: {{ a.example.org: {{ certificate: chain, key: key }} }} }}"
        );
        let ((chain, key), (other, _)) = (pair("a.example.org"), pair("b.example.org"));
        let check = |chain: &str, wanted: Option<&str>| {
            let files = [("compose.yaml", &*compose), ("chain.pem", chain), ("key.pem", &key)];
            let folder = write(&files);
            let result = read(folder.path(), &[]).unwrap().certificates();
            let said = result.err().map(|err| format!("{err:#}"));
            assert_eq!(said.as_deref(), wanted);
        };
        check(&chain, None);
        check(
            &other,
            Some(
                "x-roadstead.tls[\"a.example.org\"] cannot be used: the key does not fit the certificate: keys may not be consistent: KeyMismatch",
            ),
        );
        check(
            "",
            Some(
                "x-roadstead.tls[\"a.example.org\"] cannot be used: the chain holds no certificate: it has to begin with the host's own, in PEM",
            ),
        );
    }

    #[test]
    fn a_missing_secret_is_named() {
        let compose = format!(
            "services: {{ web: {{ image: 'app@{DIGEST}', secrets: [word] }} }}\n\
             secrets: {{ word: {{ environment: WORD }} }}"
        );
        let folder = write(&[("compose.yaml", &compose)]);
        let err = read(folder.path(), &[]).unwrap().secrets().unwrap_err().to_string();
        assert!(err.contains("secrets.word") && err.contains("WORD"), "{err}");
    }

    #[test]
    fn a_bad_file_says_which_and_where() {
        let folder = write(&[("compose.yaml", "services: { web: { image: x, ports: [99999] } }")]);
        let err = format!("{:#}", read(folder.path(), &[]).unwrap_err());
        assert!(err.contains("compose.yaml") && err.contains("services.web.ports"), "{err}");
        let err = format!("{:#}", read(&folder.path().join("gone"), &[]).unwrap_err());
        assert!(err.contains("cannot be read"), "{err}");
    }
}
