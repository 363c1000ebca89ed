//! What an engine can do beyond what every engine can.

use bollard::models::SystemInfo;
use protocol::pod::{Label, Pod, Runtime, Service};

use super::gpus::{self, GpuError};
use crate::config::GpuId;

/// What an engine can do beyond what every engine can.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// Whether it has gVisor, under the name `runsc`.
    pub(crate) gvisor: bool,
    /// Whether it has what gives containers NVIDIA's GPUs.
    pub(super) nvidia: bool,
    /// Whether it runs everything with that.
    pub(super) nvidia_by_default: bool,
    /// Who root in containers is on the machine, where that is not root (`userns-remap`).
    pub(crate) root: Option<(u32, u32)>,
}

impl Abilities {
    pub(super) fn of(info: &SystemInfo) -> Self {
        let has = |name| info.runtimes.as_ref().is_some_and(|all| all.contains_key(name));
        let remaps = info.security_options.iter().flatten().any(|o| o == "name=userns");
        // Then the engine keeps its files in a folder that is called after them.
        let folder = info.docker_root_dir.as_deref().and_then(|root| root.rsplit('/').next());
        let root = folder.and_then(|name| {
            let (user, group) = name.split_once('.')?;
            Some((user.parse().ok()?, group.parse().ok()?))
        });
        Self {
            gvisor: has("runsc"),
            nvidia: has(gpus::NVIDIA),
            nvidia_by_default: info.default_runtime.as_deref() == Some(gpus::NVIDIA),
            root: root.filter(|_ids| remaps),
        }
    }

    /// Whether it can give these GPUs to those alone who are to have them.
    pub(crate) fn give(&self, all: &[GpuId]) -> Result<(), GpuError> {
        if self.nvidia_by_default {
            return Err(GpuError::Default);
        }
        if !all.is_empty() && !self.nvidia {
            let names: Vec<&str> = all.iter().map(GpuId::as_str).collect();
            return Err(GpuError::NoRuntime(names.join(", ")));
        }
        Ok(())
    }

    /// Whether a pod's services can be run as they want to be.
    pub(crate) fn suit(&self, pod: &Pod) -> Result<(), NoRuntime> {
        let wants = |service: &Service| service.runtime == Some(Runtime::Runsc);
        match pod.services().iter().find(|(_, service)| wants(service) && !self.gvisor) {
            Some((name, _)) => Err(NoRuntime(name.clone())),
            None => Ok(()),
        }
    }

    /// Who somebody in a container is on the machine.
    pub(super) fn outside(&self, (user, group): (u32, u32)) -> (u32, u32) {
        let (first_user, first_group) = self.root.unwrap_or_default();
        (first_user.saturating_add(user), first_group.saturating_add(group))
    }
}

/// A service wants a runtime that is not there.
#[derive(Debug, thiserror::Error)]
#[error(
    "services.{0}.runtime: gVisor (runsc) is not installed here; choose another provider, or remove this"
)]
pub(crate) struct NoRuntime(Label);
