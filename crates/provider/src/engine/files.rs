//! The files that services find: secrets, configs, and what they know themselves and others by.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use protocol::pod::{AbsPath, Label, PlacedFile, Service};

use super::{Engine, EngineError, Order, images::Image, networks};

impl Engine {
    /// Lays the secrets and configs of one service down in memory; where each of them is.
    pub(super) async fn lay_files(
        &self,
        order: &Order<'_>,
        name: &Label,
        service: &Service,
        image: &Image,
    ) -> Result<BTreeMap<AbsPath, PathBuf>, EngineError> {
        let folder = self.secrets.join(order.key.of(order.hash)).join(name.as_str());
        let placed = || service.secrets.values().chain(service.configs.values());
        let (user, group) = match placed().all(|file| file.uid.is_some() && file.gid.is_some()) {
            true => (0, 0),
            // Who runs as somebody else than root could not read what is root's.
            false => self.owner(name, service, image).await?,
        };
        let mut files = BTreeMap::new();
        let mut lay = |target: &AbsPath, file: &PlacedFile, name: String, contents: &[u8]| {
            let owner = (file.uid.unwrap_or(user), file.gid.unwrap_or(group));
            let owner = self.abilities.outside(owner);
            let path = folder.join(name);
            write_file(&path, contents, file.mode, owner).map_err(EngineError::Secrets)?;
            files.insert(target.clone(), path);
            Ok::<_, EngineError>(())
        };
        for (number, (target, secret)) in service.secrets.iter().enumerate() {
            let value = order.secrets.0.get(secret.source.as_str());
            let value =
                value.ok_or_else(|| EngineError::SecretMissing(secret.source.to_string()))?;
            lay(target, secret, number.to_string(), value)?;
        }
        for (number, (target, config)) in service.configs.iter().enumerate() {
            let contents = order.pod.configs().get(&config.source).map_or("", String::as_str);
            lay(target, config, format!("config-{number}"), contents.as_bytes())?;
        }
        Ok(files)
    }

    /// Lays down the files by which a service knows itself and finds others; where each of them is.
    pub(super) fn lay_names(
        &self,
        order: &Order<'_>,
        name: &Label,
        service: &Service,
        ips: &[&str],
    ) -> Result<BTreeMap<AbsPath, PathBuf>, EngineError> {
        let folder = self.secrets.join(order.key.of(order.hash)).join(name.as_str());
        let mut files = BTreeMap::new();
        for (target, contents) in networks::names(name, service, ips) {
            let Ok(target) = target.parse::<AbsPath>() else { continue };
            let path = folder.join(target.as_str().trim_start_matches("/etc/"));
            write_file(&path, contents.as_bytes(), 0o444, (0, 0)).map_err(EngineError::Secrets)?;
            files.insert(target, path);
        }
        Ok(files)
    }
}

fn write_file(path: &Path, value: &[u8], mode: u16, owner: (u32, u32)) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    std::io::Write::write_all(&mut file, value)?;
    std::os::unix::fs::fchown(&file, Some(owner.0), Some(owner.1))?;
    file.set_permissions(std::fs::Permissions::from_mode(mode.into()))
}
