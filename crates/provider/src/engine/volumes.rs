//! The volumes of pods, as the engine mounts them, and as they are read and kept past it.

use std::collections::{BTreeMap, HashMap};

use bollard::models::VolumeCreateRequest;
use protocol::pod::Label;

use super::{Engine, EngineError, Order, images::Image, spec};
use crate::{
    leases::PodKey,
    volumes::{Mounted, VolumeFile},
};

impl Engine {
    pub(super) async fn volumes(
        &self,
        order: &Order<'_>,
        images: &BTreeMap<Label, Image>,
    ) -> Result<(), EngineError> {
        let prefix = order.key.prefix();
        for (volume, spec) in order.pod.volumes() {
            let name = spec::volume(&prefix, volume.as_str());
            // The first service that mounts it owns it.
            let user =
                order.pod.services().iter().find(|(_, service)| {
                    service.volumes.values().any(|mount| mount.source == *volume)
                });
            let owner = match user {
                Some((name, service)) => {
                    self.owner(name, service, images.get(name).unwrap_or(&Image::default())).await?
                }
                None => (0, 0),
            };
            let owner = self.abilities.outside(owner);
            let device = self.volumes.attach(&name, spec.size.0, owner).await?;
            let request = VolumeCreateRequest {
                name: Some(name),
                driver: Some("local".into()),
                driver_opts: Some(HashMap::from([
                    ("type".into(), "ext4".into()),
                    ("device".into(), device.display().to_string()),
                    ("o".into(), "nosuid,nodev,noatime".into()),
                ])),
                labels: Some(self.labels(order.key, order.block)),
                ..Default::default()
            };
            self.docker.create_volume(request).await?;
        }
        Ok(())
    }

    /// The volumes that are kept of leases that are over.
    pub(crate) fn kept_volumes(&self) -> std::io::Result<Vec<VolumeFile>> {
        self.volumes.kept()
    }

    /// Removes a kept volume.
    pub(crate) async fn discard_volume(&self, name: &str) -> std::io::Result<()> {
        self.volumes.discard(name).await
    }

    /// A volume of a lease that goes on.
    pub(crate) fn volume(&self, key: PodKey, volume: &str) -> Option<VolumeFile> {
        self.volumes.file(&spec::volume(&key.prefix(), volume))
    }

    /// Mounts a volume of a lease.
    pub(crate) async fn mount(
        &self,
        key: PodKey,
        volume: &str,
        kept: bool,
    ) -> Result<Mounted, EngineError> {
        Ok(self.volumes.mount(&spec::volume(&key.prefix(), volume), kept).await?)
    }
}
