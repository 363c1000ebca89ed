//! How a pod that runs is operated, and what is kept of one that ran.

use alloy::primitives::{Address, B256};
use protocol::{lease::CloseReason, resources::Bytes};
use serde::{Deserialize, Serialize};

/// One line of `GET /v1/leases/{id}/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseEvent {
    /// When, as RFC 3339.
    pub time: String,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happens to a lease's pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Happening {
    /// The provider has seen the lease.
    Seen {
        /// What it is to run.
        pod: B256,
    },
    /// Images are pulled or unpacked.
    Fetching,
    /// It waits for the key of its encrypted images.
    Locked,
    /// Containers start, or their health is waited for.
    Starting,
    /// All of it runs and is healthy.
    Running,
    /// It could not be started.
    Failed {
        /// Why.
        why: String,
    },
    /// A health check fails.
    HealthLost {
        /// The service.
        service: String,
    },
    /// It passes again.
    HealthRegained {
        /// The service.
        service: String,
    },
    /// A service ended by itself.
    Exited {
        /// The service.
        service: String,
        /// With which code.
        code: i64,
        /// Whether it was killed because it needed more memory than it may have.
        out_of_memory: bool,
    },
    /// A service was started again after it had ended.
    Restarted {
        /// The service.
        service: String,
    },
    /// A service was stopped by the provider: for a change, at its payer's wish, or at the end.
    Stopped {
        /// The service.
        service: String,
    },
    /// It was frozen: the account is dry.
    Paused,
    /// It was stopped, or frozen, at its payer's wish, for a while.
    Held,
    /// It was thawed, or started again after it was held.
    Resumed,
    /// The provider is in maintenance: its pods go on, as far as it can have them go on.
    Maintenance {
        /// Until about when, as RFC 3339, if it says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<String>,
        /// Why, if it says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// Its maintenance is over.
    MaintenanceOver,
    /// The lease is to run another pod from now on.
    Amended {
        /// Which.
        pod: B256,
    },
    /// The lease was challenged: its provider has to show that it is there.
    Challenged {
        /// By whom.
        by: Address,
        /// Until when it has to, as RFC 3339.
        until: String,
    },
    /// The provider answered the challenge.
    Answered,
    /// The lease was closed.
    Closed {
        /// Why, where the chain says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<CloseReason>,
    },
    /// Its containers and its network are gone.
    Removed {
        /// Until when its volumes are kept, as RFC 3339; nothing if none are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        volumes_until: Option<String>,
    },
}

/// One line of `GET /v1/leases/{id}/stats`: what a service uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStats {
    /// The service.
    pub service: String,
    /// When, as RFC 3339.
    pub time: String,
    /// Thousandths of a processor, over the last second.
    pub cpu: u64,
    /// Thousandths of a processor that it may use.
    pub cpu_limit: u64,
    /// Bytes of memory, without what the kernel could drop at once.
    pub memory: u64,
    /// Bytes of memory that it may use.
    pub memory_limit: u64,
    /// Bytes that came over the network since it started.
    pub received: u64,
    /// Bytes that went over the network since it started.
    pub sent: u64,
    /// Bytes read from disks since it started.
    pub read: u64,
    /// Bytes written to disks since it started.
    pub written: u64,
    /// Processes and threads.
    pub pids: u64,
    /// How often it was restarted.
    pub restarts: u64,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// What is to be run in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables for it, as `NAME=value`, beside those of the container.
    #[serde(default)]
    pub environment: Vec<String>,
    /// The terminal that it gets, if it gets one.
    #[serde(default)]
    pub terminal: Option<TerminalSize>,
    /// Whether anything is sent to its standard input.
    #[serde(default)]
    pub stdin: bool,
}

/// A text message of a publisher over `GET /v1/leases/{id}/exec`, the first of which is `Start`. A binary one is for the
/// program's standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToProgram {
    /// Run it.
    Start(ExecRequest),
    /// The terminal has another size.
    Resize(TerminalSize),
    /// Send it a signal, such as `INT`; with a terminal, Ctrl-C does that by itself.
    Signal(String),
    /// There is no more input.
    Eof,
}

/// A text message of the provider over `GET /v1/leases/{id}/exec`. A binary one is output, after one byte, which is
/// `STDOUT` or `STDERR`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromProgram {
    /// It ended, with this code. Nothing follows.
    Exit(i64),
    /// It could not be run, or it is not waited for any longer. Nothing follows.
    Error(String),
}

/// The first byte of a message with standard output.
pub const STDOUT: u8 = 1;

/// The first byte of a message with standard error.
pub const STDERR: u8 = 2;

/// The text message over `GET /v1/leases/{id}/forward`, either way: the sender has no more to send. Binary ones are what
/// the connection carries.
pub const EOF: &str = "eof";

/// `GET /v1/leases/{id}/stat`: what is at a path in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathStat {
    /// The last part of its path.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Whether it is a folder, or a link to one.
    pub folder: bool,
    /// Who the service runs as, as far as that is known in numbers: user and group.
    pub user: (u32, u32),
}

/// `GET /v1/leases/{id}/volumes`: one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStatus {
    /// Its name in the pod file.
    pub name: String,
    /// How large it is.
    pub size: Bytes,
    /// What it takes of the provider's disk.
    pub used: Bytes,
    /// Until when it is kept, as RFC 3339, once its lease is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_until: Option<String>,
}

/// The header of `GET /v1/leases/{id}/volumes/{name}` that says when it was begun, in Unix seconds of the provider's clock:
/// the `since` of a later one that is to have the difference alone.
pub const BEGUN: &str = "roadstead-begun";

/// What `PUT /v1/leases/{id}/volumes/{name}` did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Files, folders and links.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// `PUT /v1/leases/{id}/hold`: stop its containers and leave them so, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// After how many seconds they are started again by themselves.
    pub seconds: u64,
}
