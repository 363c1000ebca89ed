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
        let mut gpus = 0;
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
                    gpus = reserved.get("devices").map(|at| devices(&at)).unwrap_or_default();
                    reserved.finish(&[(
                        "generic_resources",
                        "only cpus, memory and GPUs can be had; remove this",
                    )]);
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
            gpus,
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

/// How many GPUs a list of devices asks for: they are the only devices that there are.
fn devices(at: &At<'_>) -> u32 {
    let gpus = at.items().into_iter().filter_map(|at| at.fields()).filter_map(|device| {
        device.only(
            "driver",
            &["nvidia"],
            "only nvidia's GPUs can be had; write nvidia, or remove this",
        );
        let capabilities = device.require("capabilities", "write capabilities: [gpu]");
        if let Some(at) = capabilities {
            for at in at.items() {
                if at.text().is_some_and(|text| text != "gpu") {
                    at.fail("only gpu can be had; write capabilities: [gpu]");
                }
            }
            if at.value.as_array().is_some_and(Vec::is_empty) {
                at.fail("it names none; write capabilities: [gpu]");
            }
        }
        let named = device.at.value.get("device_ids").is_some_and(|ids| !ids.is_null());
        let count = match named {
            true => None,
            false => device.require("count", "write how many, as in count: 1"),
        };
        let count = count.and_then(|at| {
            if at.value.as_str() == Some("all") {
                at.fail("a pod has as many as it pays for; write how many, as in count: 1");
                return None;
            }
            let count = at.whole::<u32>()?;
            at.check(in_range(&count, &limits::GPUS))?;
            Some(count)
        });
        device.finish(&[
            (
                "device_ids",
                "which GPUs a pod gets is the provider's choice; write how many, as in count: 1",
            ),
            ("options", "a GPU is given as it is; remove this"),
        ]);
        count
    });
    gpus.fold(0, u32::saturating_add)
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
