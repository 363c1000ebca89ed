//! Reads a Compose file.

mod block;
mod files;
mod life;
mod mounts;
mod networks;
mod refused;
mod resources;
mod service;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use alloy_primitives::{Address, B256};

use self::{
    files::Files,
    refused::{CONFIG_REFUSED, SECRET_REFUSED, TOP_REFUSED, VOLUME_REFUSED},
};
use super::{
    AbsPath, Digest, Errors, Fault, HostName, ImageName, ImageRef, Invalid, Label, Name, Network,
    Parts, Pod, Port, Repository, Transport, Volume,
    check::unknown,
    limits,
    names::show,
    service::default_network,
    text,
    tree::{At, Log},
};
use crate::{
    amount::{Amount, ParseAmountError, Rate, Token},
    criteria::Where,
    resources::{Bytes, Demand, Resources},
};

/// What a compose file may ask of the machine on which it is read.
pub trait Surroundings {
    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;

    /// The profiles that are active; `*` is all of them.
    fn profiles(&self) -> Vec<String> {
        let named = self.variable("COMPOSE_PROFILES").unwrap_or_default();
        named
            .split(',')
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect()
    }

    /// The text of a file, by its path as the compose file has it.
    ///
    /// # Errors
    /// Why it cannot be read, for people.
    fn read(&self, path: &str) -> Result<String, String>;
}

/// Nothing: no variables, no files.
impl Surroundings for () {
    fn variable(&self, _name: &str) -> Option<String> {
        None
    }

    fn read(&self, _path: &str) -> Result<String, String> {
        Err("there are no files here".into())
    }
}

/// A compose file, read and checked; it becomes a pod once its images have digests.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// Complete but for the digests of its images.
    draft: Parts,
    images: BTreeMap<Label, Image>,
    secrets: BTreeMap<Name, SecretSource>,
    wishes: Wishes,
    encrypt: Option<Encrypt>,
    notes: Vec<String>,
}

/// An image before it has a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name in the file.
    pub name: ImageName,
    /// Whether the file says how to build it, so that it is found on the publisher's machine.
    pub built: bool,
    /// Whether only the app's key is to open it.
    pub encrypted: bool,
}

/// Which images only the app's key is to open. What comes of it is in each image of the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encrypt {
    /// The key's file, by its path as the compose file has it; the publisher's usual one where it does not say.
    pub key: Option<String>,
    /// Whose images; those of all services where it is empty.
    pub services: BTreeSet<Label>,
}

/// Where the contents of a secret are. They never are in a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file, by its path as the compose file has it.
    File(String),
    /// In an environment variable.
    Environment(String),
}

/// What a publisher wants of providers. It shapes no container, so it is no part of the hash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The highest price.
    pub max_price: Option<MaxPrice>,
    /// Which providers.
    pub providers: Criteria,
    /// Which terms.
    pub sla: SlaWishes,
    /// What a provider's machine has to prove before it gets the pod.
    pub attested: Option<AttestedWish>,
}

/// What a provider's machine has to prove before it gets the pod, its secrets and the key of its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestedWish {
    /// What has to sign.
    pub hardware: Hardware,
    /// What may run there; one at least.
    pub measurements: BTreeSet<B256>,
    /// What Intel publishes for TDX platforms: a file, by its path as the compose file has it.
    pub collateral: Option<String>,
    /// The oldest firmware of AMD's processors that is taken: a file, by its path as the compose file has it.
    pub oldest: Option<String>,
}

/// Hardware that attests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hardware {
    /// Whichever.
    #[default]
    Any,
    /// Intel TDX.
    Tdx,
    /// AMD SEV-SNP.
    SevSnp,
}

/// Which providers come into question; an empty set is any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Criteria {
    /// Their regions, in lower case.
    pub regions: BTreeSet<String>,
    /// Their addresses.
    pub addresses: BTreeSet<Address>,
    /// `where`: what else has to hold of them.
    pub expression: Option<Where>,
}

/// Which terms a quote has to carry, in seconds; what is left out is the provider's to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlaWishes {
    /// What the provider puts up.
    pub coverage: Option<Coverage>,
    /// An outage that costs nothing.
    pub grace: Option<u32>,
    /// An outage that costs the whole coverage.
    pub full: Option<u32>,
    /// How long the provider has to answer a challenge.
    pub response: Option<u32>,
}

/// A price as it is written, `0.02/h`; what it is depends on the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaxPrice(String);

/// An amount as it is written; what it is depends on the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage(String);

/// Why a file did not become a pod.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError<E> {
    /// The digest of an image is not to be had.
    #[error("the image of services.{service}, {image}, has no digest")]
    Image {
        /// The service.
        service: Label,
        /// Its image.
        image: ImageName,
        /// Why.
        source: E,
    },
    /// The digests make it too large.
    #[error("the pod is not valid")]
    Invalid(#[source] Errors),
}

impl MaxPrice {
    /// What it is in `token`.
    ///
    /// # Errors
    /// When it is finer than the token, or too large.
    pub fn rate(&self, token: &Token) -> Result<Rate, ParseAmountError> {
        Rate::parse(&self.0, token)
    }
}

impl Coverage {
    /// What it is in `token`.
    ///
    /// # Errors
    /// When it is finer than the token, or too large.
    pub fn amount(&self, token: &Token) -> Result<Amount, ParseAmountError> {
        Amount::parse(&self.0, token)
    }
}

impl FromStr for MaxPrice {
    type Err = ParseAmountError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Rate::parse(text, &Token::finest()).map(|_| Self(text.to_owned()))
    }
}

impl FromStr for Coverage {
    type Err = ParseAmountError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Amount::parse(text, &Token::finest()).map(|_| Self(text.to_owned()))
    }
}

impl fmt::Display for MaxPrice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Parsed {
    /// The images, by service.
    pub fn images(&self) -> &BTreeMap<Label, Image> {
        &self.images
    }

    /// The secrets that services use, and where their contents are.
    pub fn secrets(&self) -> &BTreeMap<Name, SecretSource> {
        &self.secrets
    }

    /// What the publisher wants of providers.
    pub fn wishes(&self) -> &Wishes {
        &self.wishes
    }

    /// Which images are encrypted, and for which key.
    pub fn encrypt(&self) -> Option<&Encrypt> {
        self.encrypt.as_ref()
    }

    /// What was assumed, in sentences for people.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What the pod uses in all.
    pub fn resources(&self) -> Resources {
        self.draft.resources()
    }

    /// What the pod is charged for by a provider that includes that much egress: see [`Pod::demand`].
    pub fn demand(&self, included: Bytes) -> Demand {
        self.draft.demand(included)
    }

    /// Makes the pod. `find` is asked for each image that the file does not give the digest of, or that is encrypted.
    ///
    /// # Errors
    /// The first that `find` returns.
    pub fn resolve<E>(
        self,
        mut find: impl FnMut(&Label, &Image) -> Result<ImageRef, E>,
    ) -> Result<Pod, ResolveError<E>> {
        let Self { mut draft, images, .. } = self;
        for (name, service) in &mut draft.services {
            let Some(image) = images.get(name) else { continue };
            let reference = image.name.repository.clone();
            service.image = match image.name.digest.clone() {
                Some(digest) if !image.encrypted => ImageRef::Registry { digest, reference },
                Some(_) | None => find(name, image).map_err(|source| ResolveError::Image {
                    service: name.clone(),
                    image: image.name.clone(),
                    source,
                })?,
            };
        }
        Pod::try_from(draft).map_err(ResolveError::Invalid)
    }
}

impl Pod {
    /// Reads a Compose file with an `x-roadstead` block.
    ///
    /// # Errors
    /// Everything that is wrong with it, or cannot be honoured.
    pub fn from_compose(yaml: &str, surroundings: &dyn Surroundings) -> Result<Parsed, Errors> {
        let log = Log::default();
        let parsed = Files::new(&log, surroundings)
            .main(yaml)
            .and_then(|tree| Reader { log: &log, surroundings }.file(&tree));
        match (parsed, Errors::of(log.faults.take())) {
            (Some(parsed), None) => {
                let mut notes = log.notes.take();
                notes.sort();
                Ok(Parsed { notes, ..parsed })
            }
            (_, Some(errors)) => Err(errors),
            (None, None) => Err(nothing()),
        }
    }
}

fn nothing() -> Errors {
    let fault = Fault { path: "compose file".into(), what: "there is nothing in it".into() };
    Errors::one(fault)
}

struct Reader<'a> {
    log: &'a Log,
    surroundings: &'a dyn Surroundings,
}

/// What a file declares beside its services; what is `None` is in error.
#[derive(Default)]
struct Declared {
    volumes: BTreeMap<Name, Volume>,
    networks: BTreeMap<Name, Network>,
    secrets: BTreeMap<Name, Option<SecretSource>>,
    configs: BTreeMap<Name, Option<String>>,
    /// Services none of whose profiles is active, and their profiles.
    disabled: BTreeMap<String, String>,
}

impl Reader<'_> {
    fn file(&self, tree: &serde_json::Value) -> Option<Parsed> {
        let root = At { value: tree, path: String::new(), log: self.log };
        let fields = root.fields()?;
        drop(fields.get("name"));
        drop(fields.get("version"));
        let services = fields.get("services").map(|at| at.entries());
        if services.is_none() {
            self.log.fail("services", "there is none; a pod has one at least");
        }
        let services = services.unwrap_or_default();
        let declared = Declared {
            volumes: fields.get("volumes").map(|at| self.volumes(&at)).unwrap_or_default(),
            networks: fields.get("networks").map(|at| self.networks(&at)).unwrap_or_default(),
            secrets: fields.get("secrets").map(|at| self.secrets(&at)).unwrap_or_default(),
            configs: fields.get("configs").map(|at| self.configs(&at)).unwrap_or_default(),
            disabled: self.disabled(&services),
        };
        let mut parsed = Parsed {
            draft: Parts::default(),
            images: BTreeMap::new(),
            secrets: BTreeMap::new(),
            wishes: Wishes::default(),
            encrypt: None,
            notes: Vec::new(),
        };
        let mut replicated = BTreeMap::new();
        for (name, at) in services {
            if declared.disabled.contains_key(name) {
                continue;
            }
            let Some(name) = at.check(name.parse::<Label>()) else { continue };
            if let Some((service, image, replicas)) = self.service(&name, &at, &declared) {
                parsed.images.extend(image.map(|image| (name.clone(), image)));
                if replicas > 1 {
                    replicated.insert(name.clone(), replicas);
                }
                parsed.draft.services.insert(name, service);
            }
        }
        if let Some(at) = fields.get("x-roadstead") {
            (parsed.wishes, parsed.encrypt) = self.block(&at, &mut parsed.draft);
        }
        self.mark(&mut parsed, &declared.disabled);
        fields.finish(TOP_REFUSED);
        self.join(&mut parsed, declared, &replicated);
        Some(parsed)
    }

    /// Puts replicas beside their service: services of their own, which answer to its name as well, and whoever waits for it
    /// waits for them.
    fn replicate(&self, parsed: &mut Parsed, replicated: &BTreeMap<Label, usize>) {
        let services = &mut parsed.draft.services;
        for (name, replicas) in replicated {
            let Some(mut service) = services.get(name).cloned() else { continue };
            let alias: Option<HostName> = name.as_str().parse().ok();
            service.replica_of = Some(name.clone());
            let mut attachments = service.attachments();
            for attachment in attachments.values_mut() {
                attachment.aliases.extend(alias.clone());
            }
            service.networks = Some(attachments);
            for number in 2..=*replicas {
                let path = format!("services.{name}");
                let Ok(replica) = format!("{name}-{number}").parse::<Label>() else {
                    self.log
                        .fail(&path, "its name is too long for one that has replicas; shorten it");
                    break;
                };
                if services.contains_key(&replica) {
                    let what = format!(
                        "its replica {number} is called {replica}, as another service is; rename that"
                    );
                    self.log.fail(&path, what);
                    break;
                }
                let image = parsed.images.get(name).cloned();
                parsed.images.extend(image.map(|image| (replica.clone(), image)));
                for waiting in services.values_mut() {
                    let condition = waiting.depends_on.get(name).copied();
                    waiting.depends_on.extend(condition.map(|of| (replica.clone(), of)));
                    if waiting.optional.contains(name) {
                        waiting.optional.insert(replica.clone());
                    }
                }
                services.insert(replica, service.clone());
            }
        }
    }

    /// Marks the images that are encrypted.
    fn mark(&self, parsed: &mut Parsed, disabled: &BTreeMap<String, String>) {
        let Some(Encrypt { services, .. }) = &parsed.encrypt else { return };
        for name in services {
            if !parsed.images.contains_key(name) && !disabled.contains_key(name.as_str()) {
                let path = super::tree::key("x-roadstead.encrypt.services", name.as_str());
                self.log.fail(&path, "there is no service of this name, or its image is in error");
            }
        }
        for (name, image) in &mut parsed.images {
            image.encrypted = services.is_empty() || services.contains(name);
        }
    }

    /// Puts what is declared to its uses, and checks the whole.
    fn join(&self, parsed: &mut Parsed, declared: Declared, replicated: &BTreeMap<Label, usize>) {
        self.without_disabled(&mut parsed.draft, &declared.disabled);
        // What a host leads to is reached by that alone.
        for target in parsed.draft.ingress.values() {
            if let Some(service) = parsed.draft.services.get_mut(&target.service) {
                let port = Port { number: target.port, transport: Transport::Tcp };
                service.public.remove(&port);
            }
        }
        self.replicate(parsed, replicated);
        let services = || parsed.draft.services.values();
        for (host, tls) in &parsed.draft.tls {
            let known = |name: &&Name| declared.secrets.contains_key(*name);
            for name in tls.secrets().into_iter().flatten().filter(|name| !known(name)) {
                let hint = "declare it under secrets, with file or environment";
                let what = unknown("secret", name.as_str(), declared.secrets.keys(), hint);
                self.log.fail(&super::tree::key("x-roadstead.tls", host.as_str()), what);
            }
        }
        let secrets: BTreeSet<Name> = services()
            .flat_map(|service| service.secrets.values())
            .map(|f| &f.source)
            .chain(super::certificate_secrets(&parsed.draft.tls))
            .cloned()
            .collect();
        let configs: BTreeSet<Name> = services()
            .flat_map(|service| service.configs.values())
            .map(|f| f.source.clone())
            .collect();
        let networks: BTreeSet<Name> =
            services().flat_map(|service| service.attachments().into_keys()).collect();
        let declares = |(name, source): (Name, Option<SecretSource>)| {
            secrets.contains(&name).then_some((name, source?))
        };
        parsed.secrets = declared.secrets.into_iter().filter_map(declares).collect();
        parsed.draft.configs = declared
            .configs
            .into_iter()
            .filter(|(name, _)| configs.contains(name))
            .map(|(name, contents)| (name, contents.unwrap_or_default()))
            .collect();
        for (name, network) in declared.networks {
            let plain = name == default_network() && network == Network::default();
            match networks.contains(&name) {
                true if plain => (),
                true => drop(parsed.draft.networks.insert(name, network)),
                false => {
                    self.log
                        .note(format!("networks.{name}: no service is on it, so it is left out"));
                }
            }
        }
        parsed.draft.volumes = declared.volumes;
        self.check(&parsed.draft);
        let mounted = |name: &Name| {
            let services = parsed.draft.services.values();
            services.flat_map(|service| service.volumes.values()).any(|mount| mount.source == *name)
        };
        let unused: Vec<Name> =
            parsed.draft.volumes.keys().filter(|name| !mounted(name)).cloned().collect();
        for name in unused {
            parsed.draft.volumes.remove(&name);
            self.log.note(format!("volumes.{name}: no service mounts it, so it is left out"));
        }
    }

    /// Adds what is wrong with the whole to what is known to be wrong with its parts.
    fn check(&self, draft: &Parts) {
        let broken: BTreeSet<String> = self
            .log
            .faults
            .borrow()
            .iter()
            .filter_map(|fault| fault.path.strip_prefix("services."))
            .filter_map(|rest| rest.split(['.', '[']).next().map(str::to_owned))
            .collect();
        let faults = draft.faults(&broken);
        let mut known = self.log.faults.borrow_mut();
        // What is wrong with a service is wrong with its replicas, and told once.
        let replicas = draft.services.iter().filter(|(_, service)| service.replica_of.is_some());
        let replicas: Vec<_> = replicas.map(|(name, _)| format!("services.{name}.")).collect();
        let fresh = |fault: &Fault| {
            !known.iter().any(|other| other.path == fault.path)
                && !replicas.iter().any(|replica| fault.path.starts_with(replica))
        };
        let fresh: Vec<_> = faults.into_iter().filter(fresh).collect();
        known.extend(fresh);
    }

    /// The services that are left out because none of their profiles is active.
    fn disabled(&self, services: &[(&str, At<'_>)]) -> BTreeMap<String, String> {
        let active = self.surroundings.profiles();
        let mut disabled = BTreeMap::new();
        for (name, at) in services {
            let Some(at) = at.value.get("profiles").filter(|profiles| !profiles.is_null()) else {
                continue;
            };
            let at = At { value: at, path: format!("services.{name}.profiles"), log: self.log };
            let profiles: Vec<Name> = at.items().iter().filter_map(At::parse).collect();
            let is_active =
                |profile: &Name| active.iter().any(|a| a == "*" || a == profile.as_str());
            if profiles.is_empty() || profiles.iter().any(is_active) {
                continue;
            }
            let names: Vec<&str> = profiles.iter().map(Name::as_str).collect();
            let names = names.join(", ");
            self.log.note(format!(
                "services.{name}: it is left out, as none of its profiles ({names}) is active"
            ));
            disabled.insert((*name).to_owned(), names);
        }
        if !services.is_empty() && disabled.len() == services.len() {
            self.log.fail(
                "services",
                "each has profiles, and none is active; write --profile, or set COMPOSE_PROFILES",
            );
        }
        disabled
    }

    /// Takes out what waits for, or leads to, services that are left out: it is an error where it was not optional.
    fn without_disabled(&self, draft: &mut Parts, disabled: &BTreeMap<String, String>) {
        let activate = |other: &str, profiles: &str| {
            format!(
                "{other} is left out, as none of its profiles ({profiles}) is active; write --profile, or set COMPOSE_PROFILES"
            )
        };
        let present: BTreeSet<Label> = draft.services.keys().cloned().collect();
        for (name, service) in &mut draft.services {
            let gone: Vec<Label> = service
                .depends_on
                .keys()
                .filter(|other| !present.contains(*other))
                .cloned()
                .collect();
            for other in gone {
                let path = format!("services.{name}.depends_on.{other}");
                let known = disabled.get(other.as_str());
                if service.optional.remove(&other) {
                    self.log.note(format!(
                        "{path}: there is no such service, so nothing is waited for"
                    ));
                } else if let Some(profiles) = known {
                    let what =
                        format!("{}, or write required: false", activate(other.as_str(), profiles));
                    self.log.fail(&path, what);
                } else {
                    continue;
                }
                service.depends_on.remove(&other);
            }
        }
        draft.ingress.retain(|host, target| {
            let profiles = disabled.get(target.service.as_str());
            if let Some(profiles) = profiles {
                let path = super::tree::key("x-roadstead.ingress", host.as_str());
                self.log.fail(&path, activate(target.service.as_str(), profiles));
            }
            profiles.is_none()
        });
    }

    fn volumes(&self, at: &At<'_>) -> BTreeMap<Name, Volume> {
        let mut volumes = BTreeMap::new();
        for (name, at) in at.entries() {
            let name = at.check(name.parse::<Name>());
            let size = if at.value.is_null() {
                None
            } else {
                let Some(fields) = at.fields() else { continue };
                let size = fields.get("x-size");
                fields.only("driver", &["local"], "the provider makes the volume; remove this");
                fields.only(
                    "external",
                    &["false"],
                    "a pod brings its own volumes; remove this and write x-size",
                );
                fields.finish(VOLUME_REFUSED);
                size
            };
            let size = match size {
                Some(size) => size.parse::<Bytes>(),
                None => {
                    at.fail("x-size is missing; a volume has a size that is paid for, as in { x-size: 1G }");
                    None
                }
            };
            // A volume of a bad size is still one, or its mounts would be errors, too.
            let size = size.unwrap_or(Bytes(*limits::VOLUME.start()));
            volumes.extend(name.map(|name| (name, Volume { size })));
        }
        volumes
    }

    fn secrets(&self, at: &At<'_>) -> BTreeMap<Name, Option<SecretSource>> {
        let mut secrets = BTreeMap::new();
        for (name, at) in at.entries() {
            let name = at.check(name.parse::<Name>());
            let source = self.secret_source(&at);
            secrets.extend(name.map(|name| (name, source)));
        }
        secrets
    }

    fn secret_source(&self, at: &At<'_>) -> Option<SecretSource> {
        let fields = at.fields()?;
        let file = fields.get("file").map(|at| at.text());
        let variable = fields.get("environment").map(|at| at.text());
        fields.finish(SECRET_REFUSED);
        match (file, variable) {
            (Some(file), None) => file.map(SecretSource::File),
            (None, Some(variable)) => variable.map(SecretSource::Environment),
            (None, None) => {
                at.fail("its contents are missing; write file: PATH or environment: NAME");
                None
            }
            (Some(_), Some(_)) => {
                at.fail("it has a file and an environment; remove one");
                None
            }
        }
    }

    fn configs(&self, at: &At<'_>) -> BTreeMap<Name, Option<String>> {
        let mut configs = BTreeMap::new();
        for (name, at) in at.entries() {
            let name = at.check(name.parse::<Name>());
            let contents = self.config(&at);
            configs.extend(name.map(|name| (name, contents)));
        }
        configs
    }

    /// The contents of a config: they are part of the pod.
    fn config(&self, at: &At<'_>) -> Option<String> {
        let fields = at.fields()?;
        let content = fields.get("content");
        let file = fields.get("file");
        let variable = fields.get("environment");
        fields.finish(CONFIG_REFUSED);
        match (content, file, variable) {
            (Some(at), None, None) => at.text(),
            (None, Some(at), None) => self.contents(&at, &at.text()?),
            (None, None, Some(at)) => {
                let name = at.text()?;
                let value = self.surroundings.variable(&name);
                if value.is_none() {
                    at.fail(format!(
                        "variable {} is not set; export it, or put it into .env",
                        show(&name)
                    ));
                }
                value
            }
            (None, None, None) => {
                at.fail("its contents are missing; write content, file or environment");
                None
            }
            (_, _, _) => {
                at.fail("it has several of content, file and environment; keep one");
                None
            }
        }
    }

    /// The text of a file.
    fn contents(&self, at: &At<'_>, path: &str) -> Option<String> {
        let read = self.surroundings.read(path);
        let text = at.check(read.map_err(|why| format!("{} cannot be read: {why}", show(path))))?;
        if text.len() > limits::FILE {
            at.fail(format!("{} is larger than {} bytes", show(path), limits::FILE));
            return None;
        }
        Some(text)
    }

    fn milliseconds(&self, at: &At<'_>) -> Option<u64> {
        let text = at.scalar()?;
        at.check(text::milliseconds(&text))
    }

    /// Whole seconds, rounded up: nobody gets less time than was asked for.
    fn seconds(&self, at: &At<'_>) -> Option<u32> {
        let seconds = self.milliseconds(at)?.div_ceil(1_000);
        at.check(u32::try_from(seconds).map_err(|_err| "this is too long; write less"))
    }
}

/// Stands for an image until `resolve`; nobody sees it.
fn placeholder() -> Option<ImageRef> {
    let digest: Digest = format!("sha256:{:064}", 0).parse().ok()?;
    let reference: Repository = "docker.io/library/unresolved".parse().ok()?;
    Some(ImageRef::Registry { digest, reference })
}

/// The entries of a map or of a list of `NAME=VALUE`.
fn pairs<'a>(at: &At<'a>) -> Vec<(At<'a>, String, Option<String>)> {
    if at.value.is_array() {
        let items = at.items().into_iter().filter_map(|at| {
            let text = at.text()?;
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (text, None),
            };
            Some((at, name, value))
        });
        return items.collect();
    }
    let entries = at.entries().into_iter().filter_map(|(name, at)| {
        let value = match at.value.is_null() {
            true => None,
            false => Some(at.value_text()?),
        };
        Some((at, name.to_owned(), value))
    });
    entries.collect()
}

fn path(at: &At<'_>) -> Option<AbsPath> {
    let text = at.text()?;
    at.check(absolute(&text))
}

/// A path, without the `/` at its end that people write.
fn absolute(text: &str) -> Result<AbsPath, Invalid> {
    match text.trim_end_matches('/') {
        "" if text.starts_with('/') => "/".parse(),
        trimmed => trimmed.parse(),
    }
}
