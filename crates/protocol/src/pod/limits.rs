//! The bounds of a pod. A provider holds a hostile publisher to them, so they are part of the format.

use std::ops::RangeInclusive;

/// A compose file, in bytes.
pub const FILE: usize = 1 << 20;
/// The nodes of a compose file once its anchors are expanded.
pub const NODES: usize = 50_000;
/// Files that a compose file includes, or extends services of.
pub const FILES: usize = 32;
/// How deep files include each other, and services extend each other.
pub const NESTING: usize = 16;
/// A compose file once its variables are expanded, in bytes.
pub const EXPANDED: usize = 16 << 20;
/// The canonical form, in bytes.
pub const CANONICAL: usize = 256 << 10;
/// Faults of a pod that are told.
pub const FAULTS: usize = 100;
/// Services of a pod.
pub const SERVICES: usize = 32;
/// Volumes of a pod.
pub const VOLUMES: usize = 32;
/// Networks of a pod: each takes one of the engine's.
pub const NETWORKS: usize = 8;
/// Further names of a service on a network.
pub const ALIASES: usize = 32;
/// Configs of a pod.
pub const CONFIGS: usize = 64;
/// Hosts of a pod.
pub const HOSTS: usize = 32;
/// Words of a command.
pub const WORDS: usize = 256;
/// A value or a word, in bytes: Linux takes 128 KiB.
pub const TEXT: usize = 64 << 10;
/// The name of a variable or the key of a label, in bytes.
pub const KEY: usize = 256;
/// A path, in bytes.
pub const PATH: usize = 1_024;
/// Variables of a service.
pub const VARIABLES: usize = 512;
/// Labels of a service.
pub const LABELS: usize = 64;
/// Ports of a service.
pub const PORTS: usize = 64;
/// Public ports of a pod: each takes one of the provider's.
pub const PUBLIC_PORTS: usize = 16;
/// Further hosts of a service, and addresses of each.
pub const EXTRA_HOSTS: usize = 64;
/// Name servers of a service, of which `resolv.conf(5)` takes three; domains to look in, and options.
pub const RESOLVER: (usize, usize, usize) = (3, 6, 16);
/// Further groups of a service.
pub const GROUPS: usize = 32;
/// A setting of the kernel, in bytes.
pub const SYSCTL: usize = 64;
/// A process's limit: a petabyte, and far beyond what anything counts to.
pub const ULIMIT: i64 = 1 << 50;
/// Open files of a process: the kernel's own limit, as long as nobody changed it.
pub const OPEN_FILES: i64 = 1 << 20;
/// Volumes, tmpfs, secrets and configs in one service.
pub const MOUNTS: usize = 64;
/// Processor time of a service, in millicores: Docker needs at least a hundredth.
pub const CPU: RangeInclusive<u32> = 10..=256_000;
/// Memory of a service, in bytes: Docker needs at least 6 MiB.
pub const MEMORY: RangeInclusive<u64> = 6 << 20..=4 << 40;
/// Size of a volume, in bytes.
pub const VOLUME: RangeInclusive<u64> = 1 << 20..=64 << 40;
/// What a service may write outside of its volumes, in bytes: a file system needs some of it for itself.
pub const LAYER: RangeInclusive<u64> = 16 << 20..=1 << 40;
/// What it may if it says nothing, in bytes.
pub const DEFAULT_LAYER: u64 = 1 << 30;
/// How fast a pod may send, in bits per second.
pub const EGRESS_RATE: RangeInclusive<u64> = 64_000..=10_000_000_000;
/// What a pod may send in 30 days, in bytes.
pub const EGRESS_TOTAL: RangeInclusive<u64> = 1 << 20..=1 << 50;
/// Size of a tmpfs, in bytes; its pages count as the service's memory as well.
pub const TMPFS: RangeInclusive<u64> = 4 << 10..=4 << 40;
/// Processes and threads of a service.
pub const PIDS: RangeInclusive<u32> = 16..=32_768;
/// A health check's interval or timeout, in milliseconds: Docker takes 1 ms at least, a day is more than enough.
pub const CHECK_MS: RangeInclusive<u64> = 1..=86_400_000;
/// A health check's retries.
pub const RETRIES: RangeInclusive<u32> = 1..=1_000;
/// Restarts on failure.
pub const RESTARTS: RangeInclusive<u32> = 1..=1_000;
/// How long a service may take to stop, in seconds.
pub const STOP_S: RangeInclusive<u32> = 0..=3_600;
/// GPUs of a service that has some.
pub const GPUS: RangeInclusive<u32> = 1..=16;
/// What a service gets that says nothing about processor time, in millicores.
pub const DEFAULT_CPU: u32 = 500;
/// What a service gets that says nothing about memory, in bytes.
pub const DEFAULT_MEMORY: u64 = 256 << 20;
/// What a service gets that says nothing about processes.
pub const DEFAULT_PIDS: u32 = 512;
/// What a tmpfs gets that says nothing about its size, in bytes.
pub const DEFAULT_TMPFS: u64 = 64 << 20;
/// How the labels begin that are not the publisher's.
pub const RESERVED_LABELS: &[&str] =
    &["roadstead", "io.roadstead", "com.docker.", "org.mobyproject"];
