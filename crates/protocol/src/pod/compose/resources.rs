//! What a service may use, and where it says so.

use super::Reader;
use crate::{
    pod::{
        Label, Limits,
        check::{bytes_in_range, cpu_in_range, in_range},
        limits,
        tree::{At, Fields},
    },
    resources::{Bytes, Cpu},
};

impl Reader<'_> {
    pub(super) fn limits(
        &self,
        name: &Label,
        fields: &Fields<'_>,
        deploy: Option<&Fields<'_>>,
    ) -> Limits {
        let mut cpu = fields.get("cpus").map(|at| (at.parse::<Cpu>(), at));
        let mut memory = fields.get("mem_limit").map(|at| (at.parse::<Bytes>(), at));
        let mut pids = fields.get("pids_limit").map(|at| (at.whole::<u32>(), at));
        let mut reserved_cpu = None;
        let mut reserved_memory =
            fields.get("mem_reservation").and_then(|at| Some((at.parse::<Bytes>()?, at)));
        if let Some(deploy) = deploy {
            let resources = deploy.get("resources").and_then(|at| at.fields());
            if let Some(resources) = resources {
                if let Some(limits) = resources.get("limits").and_then(|at| at.fields()) {
                    replace(&mut cpu, limits.get("cpus").map(|at| (at.parse(), at)));
                    replace(&mut memory, limits.get("memory").map(|at| (at.parse(), at)));
                    replace(&mut pids, limits.get("pids").map(|at| (at.whole(), at)));
                    limits.finish(&[]);
                }
                if let Some(reserved) = resources.get("reservations").and_then(|at| at.fields()) {
                    reserved_cpu =
                        reserved.get("cpus").and_then(|at| Some((at.parse::<Cpu>()?, at)));
                    let memory = reserved.get("memory");
                    reserved_memory =
                        memory.and_then(|at| Some((at.parse::<Bytes>()?, at))).or(reserved_memory);
                    reserved.finish(&[
                        ("devices", "GPUs and other devices are not offered yet; remove this"),
                        ("generic_resources", "only cpus and memory can be had; remove this"),
                    ]);
                }
                resources.finish(&[]);
            }
        }
        let good = |at: &At<'_>, result| at.check(result).is_some();
        let cpu = cpu.map(|(cpu, at)| cpu.filter(|cpu| good(&at, cpu_in_range(*cpu))));
        let memory = memory
            .map(|(bytes, at)| bytes.filter(|b| good(&at, bytes_in_range(*b, &limits::MEMORY))));
        let pids =
            pids.and_then(|(pids, at)| pids.filter(|p| good(&at, in_range(p, &limits::PIDS))));
        let mut assumed = Vec::new();
        let cpu = cpu.unwrap_or_else(|| {
            assumed.push(format!("cpus: {}", Cpu(limits::DEFAULT_CPU)));
            Some(Cpu(limits::DEFAULT_CPU))
        });
        let memory = memory.unwrap_or_else(|| {
            assumed.push("memory: 256M".to_owned());
            Some(Bytes(limits::DEFAULT_MEMORY))
        });
        if !assumed.is_empty() {
            let assumed = assumed.join(" and ");
            self.log.note(format!("services.{name}: no limit is set, so it gets {assumed}"));
        }
        let limits = Limits {
            cpu: cpu.unwrap_or(Cpu(limits::DEFAULT_CPU)),
            memory: memory.unwrap_or(Bytes(limits::DEFAULT_MEMORY)),
            pids: pids.unwrap_or(limits::DEFAULT_PIDS),
        };
        if let Some((_, at)) = reserved_cpu.filter(|(cpu, _)| *cpu > limits.cpu) {
            at.fail(format!("more is reserved than the limit of {}; raise the limit", limits.cpu));
        }
        if let Some((_, at)) = reserved_memory.filter(|(memory, _)| *memory > limits.memory) {
            at.fail(format!(
                "more is reserved than the limit of {}; raise the limit",
                limits.memory
            ));
        }
        limits
    }
}

/// The later limit wins; two that differ are refused, as Compose refuses them.
fn replace<'a, T: PartialEq>(
    slot: &mut Option<(Option<T>, At<'a>)>,
    later: Option<(Option<T>, At<'a>)>,
) {
    let Some((value, at)) = later else { return };
    if let Some((Some(first), first_at)) = slot
        && value.as_ref().is_some_and(|value| value != first)
    {
        first_at.fail(format!("{} says otherwise; remove one", at.path));
    }
    *slot = Some((value, at));
}
