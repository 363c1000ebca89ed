//! GPUs: which of the provider's are whose.
//!
//! Containers carry the names of theirs as a label, and what there is of containers is all that is known. So a provider
//! that starts anew knows it too, and sees as well what others on the same engine have given.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use bollard::{models::ContainerSummaryStateEnum, query_parameters::ListContainersOptionsBuilder};
use protocol::pod::{Label, PodHash};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{Engine, EngineError, Order, key};
use crate::{config::GpuId, leases::PodKey};

/// The label with the names, with commas in between.
const LABEL: &str = "roadstead.gpus";

/// How Docker calls what gives containers GPUs.
pub(super) const NVIDIA: &str = "nvidia";

/// Why an engine gives no GPUs, or gives them to everybody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// It has nothing that gives containers GPUs.
    #[error(
        "capacity.gpus names {0}, and Docker has no runtime called nvidia; install the NVIDIA Container Toolkit, run `nvidia-ctk runtime configure --runtime=docker` and start Docker again, or take capacity.gpus out"
    )]
    NoRuntime(String),
    /// It runs everything with what gives an image the GPUs that it asks for.
    #[error(
        "Docker's default runtime is nvidia, with which every image has all GPUs that it asks for, whoever pays for them; take default-runtime out of its daemon.json and start it again"
    )]
    Default,
}

/// The provider's GPUs.
#[derive(Debug, Clone, Default)]
pub(super) struct Gpus {
    all: Arc<[GpuId]>,
    /// Held from where free ones are looked for to where a container has them.
    giving: Arc<Mutex<()>>,
}

/// GPUs that nobody else is given meanwhile.
#[derive(Debug, Default)]
pub(super) struct Picked {
    pub(super) gpus: Vec<GpuId>,
    _alone: Option<OwnedMutexGuard<()>>,
}

impl Picked {
    /// What tells, later on, whose they are.
    pub(super) fn label(&self) -> Option<(String, String)> {
        let names: Vec<&str> = self.gpus.iter().map(GpuId::as_str).collect();
        (!names.is_empty()).then(|| (LABEL.to_owned(), names.join(",")))
    }
}

impl Gpus {
    pub(super) fn new(all: &[GpuId]) -> Self {
        Self { all: all.into(), giving: Arc::default() }
    }
}

impl Engine {
    /// GPUs for a service whose container is about to be made.
    pub(super) async fn pick_gpus(
        &self,
        order: &Order<'_>,
        service: &Label,
        count: u32,
    ) -> Result<Picked, EngineError> {
        if count == 0 {
            return Ok(Picked::default());
        }
        let alone = Arc::clone(&self.gpus.giving).lock_owned().await;
        let any = HashMap::from([("label".to_owned(), vec![LABEL.to_owned()])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&any).build();
        let containers = self.docker.list_containers(Some(options)).await?;
        let holders = containers.into_iter().map(|summary| {
            let state = summary.state.unwrap_or(ContainerSummaryStateEnum::EMPTY);
            (summary.labels.unwrap_or_default(), state)
        });
        let taken = taken(holders, order.key, order.hash);
        match free(&self.gpus.all, &taken, count) {
            Some(gpus) => Ok(Picked { gpus, _alone: Some(alone) }),
            None => Err(EngineError::NoGpu { service: service.clone(), count }),
        }
    }
}

/// The names of those that somebody has. A pod that was stopped for the lease's next one needs its own no more: should it
/// be started again, the next one is removed before.
fn taken(
    holders: impl IntoIterator<Item = (HashMap<String, String>, ContainerSummaryStateEnum)>,
    lease: PodKey,
    pod: PodHash,
) -> BTreeSet<String> {
    use ContainerSummaryStateEnum as S;
    let holds = |(labels, state): &(HashMap<String, String>, S)| {
        let stopped = matches!(state, S::CREATED | S::EXITED | S::DEAD);
        let of = super::pod_of(labels);
        !(stopped && key(labels) == Some(lease) && of != Some(pod))
    };
    let names = |(labels, _): (HashMap<String, String>, S)| {
        let names = labels.get(LABEL).cloned().unwrap_or_default();
        names.split(',').map(str::to_owned).collect::<Vec<_>>()
    };
    holders.into_iter().filter(holds).flat_map(names).collect()
}

/// So many that nobody has, the first ones first.
fn free(all: &[GpuId], taken: &BTreeSet<String>, count: u32) -> Option<Vec<GpuId>> {
    let count = usize::try_from(count).ok()?;
    let free = all.iter().filter(|gpu| !taken.contains(gpu.as_str()));
    let free: Vec<GpuId> = free.take(count).cloned().collect();
    (free.len() == count).then_some(free)
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;
    use bollard::models::{Runtime, SystemInfo};

    use super::{super::Abilities, *};

    fn ids(names: &[&str]) -> Vec<GpuId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn the_first_free_ones_are_given_and_never_fewer() {
        let all = ids(&["0", "1", "GPU-a", "3"]);
        let check = |taken: &[&str], count: u32, wanted: Option<&[&str]>| {
            let taken = taken.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(free(&all, &taken, count), wanted.map(ids), "{taken:?} {count}");
        };
        check(&[], 1, Some(&["0"]));
        check(&["0", "GPU-a"], 2, Some(&["1", "3"]));
        check(&["0", "GPU-a"], 3, None);
        // Somebody else's provider may name others.
        check(&["7", "0"], 3, Some(&["1", "GPU-a", "3"]));
        check(&["0", "1", "GPU-a", "3"], 1, None);
    }

    #[test]
    fn whose_they_are_is_in_the_labels() {
        use ContainerSummaryStateEnum as S;
        let (lease, pod) = (PodKey { lease: 7, opening: B256::repeat_byte(1) }, PodHash::default());
        let former = PodHash(B256::repeat_byte(9));
        let of = |lease: PodKey, pod: PodHash, gpus: &str, state: S| {
            let labels = [
                ("roadstead.lease", lease.lease.to_string()),
                ("roadstead.opening", lease.opening.to_string()),
                ("roadstead.pod", pod.to_string()),
                (LABEL, gpus.to_owned()),
            ];
            (labels.map(|(name, value)| (name.to_owned(), value)).into(), state)
        };
        let other = PodKey { lease: 8, ..lease };
        let check = |holder, wanted: &[&str]| {
            let wanted = wanted.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(taken([holder], lease, pod), wanted);
        };
        // Stopped or frozen, it is paid for.
        check(of(other, pod, "0,GPU-a", S::EXITED), &["0", "GPU-a"]);
        check(of(other, pod, "0", S::PAUSED), &["0"]);
        check(of(lease, pod, "1", S::EXITED), &["1"]);
        check(of(lease, former, "1", S::RUNNING), &["1"]);
        check(of(lease, former, "1", S::EXITED), &[]);
        // Somebody else's, on the same engine.
        check((HashMap::from([(LABEL.to_owned(), "2".to_owned())]), S::CREATED), &["2"]);
    }

    #[test]
    fn an_engine_has_to_give_gpus_to_those_alone_who_pay() {
        let info = |runtimes: &[&str], default: &str| SystemInfo {
            runtimes: Some(
                runtimes.iter().map(|name| ((*name).to_owned(), Runtime::default())).collect(),
            ),
            default_runtime: Some(default.to_owned()),
            ..SystemInfo::default()
        };
        let gpus = ids(&["0", "1"]);
        let fault = |all: &[GpuId], info: &SystemInfo| Abilities::of(info).give(all).err();
        assert_eq!(fault(&gpus, &info(&["runc", "nvidia"], "runc")), None);
        assert_eq!(fault(&[], &info(&["runc"], "runc")), None);
        let none = fault(&gpus, &info(&["runc", "runsc"], "runc"));
        assert_eq!(none, Some(GpuError::NoRuntime("0, 1".into())));
        assert_eq!(fault(&gpus, &SystemInfo::default()), none);
        for all in [&gpus[..], &[]] {
            let every = fault(all, &info(&["runc", "nvidia"], "nvidia"));
            assert_eq!(every, Some(GpuError::Default));
        }
    }
}
