//! What a container may write outside of its volumes: a file system of exactly that size.
//!
//! Docker has no limit for it on most file systems. It keeps the layer of each container in a folder of its own, which is
//! there once the container is made. A file system is mounted over that folder before the container starts, and beneath
//! it the folder is left without what an overlay needs. So where the mount is missing, as after a restart of the machine,
//! Docker cannot start the container by itself: the provider does, once its rules, limits and secrets are in place.
//!
//! In the same file system is what the image declares as volumes and no volume is mounted over. Docker would make a folder
//! without limit on the machine's disk of each.

use std::path::{Path, PathBuf};

use bollard::{models::ContainerInspectResponse, query_parameters::ListContainersOptionsBuilder};
use protocol::pod::{Label, Service, limits};

use super::{Engine, EngineError, is_missing};
use crate::volumes::{VolumeError, bind, unmount_now};

/// Docker's storage driver whose layers are folders.
const OVERLAY: &str = "overlay2";

/// What an overlay needs of its folder: first what has nothing of the container's in it.
const NEEDED: [&str; 2] = ["work", "diff"];

/// Where in a layer's file system the image's volumes are.
const DECLARED: &str = "declared";

impl Engine {
    /// Whether what containers write can be bounded; if not, why.
    pub(crate) fn bounds(&self) -> Result<(), &str> {
        self.unbounded.as_deref().map_or(Ok(()), Err)
    }

    /// Bounds what a container that does not run may write.
    pub(super) async fn bound(
        &self,
        name: &Label,
        service: &Service,
        id: &str,
    ) -> Result<(), EngineError> {
        let found = self.docker.inspect_container(id, None).await?;
        let declared = declared(service, &found);
        let layer = service.layer();
        if layer.0 == 0 && !declared.is_empty() {
            let paths = declared.into_iter().map(|(path, _)| path).collect::<Vec<_>>().join(", ");
            return Err(EngineError::Declared { service: name.clone(), paths });
        }
        if let Err(why) = self.bounds() {
            return match layer.0 {
                0 => Ok(()),
                _ => Err(EngineError::Unbounded { service: name.clone(), why: why.to_owned() }),
            };
        }
        let Some(folder) = folder(&found) else {
            let why = "Docker does not say where the container's layer is".to_owned();
            return Err(EngineError::Unbounded { service: name.clone(), why });
        };
        let inside: Vec<(String, PathBuf)> = (0_u32..)
            .zip(&declared)
            .map(|(number, (_, source))| (format!("{DECLARED}/{number}"), source.clone()))
            .collect();
        // The mount points that a start makes take some of it also where the root cannot be written.
        let bytes = layer.0.max(*limits::LAYER.start());
        self.volumes.cover(id, bytes, &folder, &inside, NEEDED).await?;
        for (name, source) in &inside {
            bind(&folder.join(name), source)?;
        }
        Ok(())
    }

    /// What has to be unmounted for a container to be removed, and its layer to go.
    pub(super) async fn layer_of(&self, id: &str) -> Result<Option<Layer>, EngineError> {
        let found = match self.docker.inspect_container(id, None).await {
            Err(err) if is_missing(&err) => return Ok(None),
            found => found?,
        };
        let mounts = found.mounts.clone().unwrap_or_default();
        let sources = mounts.into_iter().filter(|mount| mount.typ.as_deref() == Some("volume"));
        let declared = sources.filter(|mount| mount.name.as_deref().is_some_and(is_anonymous));
        let declared = declared.filter_map(|mount| mount.source.map(PathBuf::from)).collect();
        Ok(Some(Layer { folder: folder(&found), declared }))
    }

    /// Removes layers whose containers are gone.
    pub(crate) async fn tidy_layers(&self) -> Result<(), EngineError> {
        // Before the containers: each layer is younger than its container.
        let layers = self.volumes.layers().map_err(VolumeError::Io)?;
        if layers.is_empty() {
            return Ok(());
        }
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let containers = self.docker.list_containers(Some(options)).await?;
        let there: Vec<String> = containers.into_iter().filter_map(|c| c.id).collect();
        for layer in layers.iter().filter(|layer| !there.contains(*layer)) {
            self.volumes.uncover(layer, None).await?;
        }
        Ok(())
    }

    /// What a container's layer takes of the disk.
    pub(crate) fn layer_used(&self, id: &str) -> Option<u64> {
        self.volumes.layer_used(id)
    }
}

/// Where a container's layer is.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) folder: Option<PathBuf>,
    declared: Vec<PathBuf>,
}

impl Layer {
    /// Lets go of what the image declared as volumes, which Docker could not remove otherwise.
    pub(super) fn release(&self) -> Result<(), VolumeError> {
        self.declared.iter().try_for_each(|source| unmount_now(source))
    }
}

/// Why an engine cannot bound what containers write.
pub(super) fn unbounded(driver: Option<&str>, root: Option<&Path>) -> Option<String> {
    match (driver, root) {
        (Some(OVERLAY), Some(_)) => None,
        (Some(OVERLAY), None) => Some("Docker is on another machine".into()),
        (driver, _) => Some(format!(
            "Docker's storage driver is {}, and only {OVERLAY} is supported",
            driver.unwrap_or("not known")
        )),
    }
}

/// The folder of a container's layer, if it has one that is like the others.
fn folder(found: &ContainerInspectResponse) -> Option<PathBuf> {
    let driver = found.graph_driver.as_ref().filter(|driver| driver.name == OVERLAY)?;
    let folder = Path::new(driver.data.get("UpperDir")?).parent()?;
    folder.is_dir().then(|| folder.to_owned())
}

/// Where the image declares volumes that no volume of the pod is mounted over, and where Docker has them.
fn declared(service: &Service, found: &ContainerInspectResponse) -> Vec<(String, PathBuf)> {
    let mut declared: Vec<(String, PathBuf)> = Vec::new();
    for mount in found.mounts.iter().flatten() {
        let (Some(name), Some(source)) = (&mount.name, &mount.source) else { continue };
        let path = mount.destination.clone().unwrap_or_default();
        let covered = service.tmpfs.keys().any(|tmpfs| tmpfs.as_str() == path);
        if mount.typ.as_deref() == Some("volume") && is_anonymous(name) && !covered {
            declared.push((path, source.into()));
        }
    }
    declared.sort();
    declared
}

/// Whether a volume's name is one that Docker gives by itself: 32 random bytes. Ours begin otherwise.
fn is_anonymous(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_declares_is_told_from_what_the_pod_mounts() {
        let anonymous = "a".repeat(64);
        let found: ContainerInspectResponse = serde_json::from_value(serde_json::json!({
            "GraphDriver": { "Name": "overlay2", "Data": { "UpperDir": "/proc/self/diff" } },
            "Mounts": [
                { "Type": "volume", "Name": "rs-1-ab-data", "Source": "/v/1", "Destination": "/data" },
                { "Type": "volume", "Name": anonymous, "Source": "/v/3", "Destination": "/var/lib/b" },
                { "Type": "volume", "Name": anonymous, "Source": "/v/2", "Destination": "/var/lib/a" },
                { "Type": "volume", "Name": anonymous, "Source": "/v/4", "Destination": "/cache" },
                { "Type": "bind", "Source": "/run/secrets/x", "Destination": "/run/secrets/key" },
            ],
        }))
        .unwrap();
        let service: Service = serde_json::from_value(serde_json::json!({
            "image": { "pushed": { "id": format!("sha256:{anonymous}") } },
            "limits": { "cpu": 250, "memory": 64 << 20, "pids": 32 },
            "tmpfs": { "/cache": { "mode": 511, "size": 1 << 20 } },
        }))
        .unwrap();
        let wanted = [("/var/lib/a", "/v/2"), ("/var/lib/b", "/v/3")];
        let wanted: Vec<_> = wanted.map(|(path, at)| (path.to_owned(), at.into())).to_vec();
        assert_eq!(declared(&service, &found), wanted);
        assert_eq!(folder(&found), Some("/proc/self".into()));
        assert_eq!(service.layer().0, limits::DEFAULT_LAYER);
    }

    #[test]
    fn only_layers_that_are_folders_here_can_be_bounded() {
        let here = Some(Path::new("/var/lib/docker"));
        assert_eq!(unbounded(Some("overlay2"), here), None);
        assert!(unbounded(Some("overlay2"), None).unwrap().contains("another machine"));
        assert!(unbounded(Some("overlayfs"), here).unwrap().contains("overlayfs"));
        assert!(unbounded(None, here).is_some());
    }
}
