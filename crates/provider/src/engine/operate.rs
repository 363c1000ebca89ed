//! Pods that run: programs in them, files, what they use, what happens to them; and what is kept of those that are gone.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    pin::Pin,
    time::{Duration, SystemTime},
};

use bollard::{
    container::LogOutput,
    errors::Error as DockerError,
    exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults},
    models::{ContainerStatsResponse, EventMessage},
    query_parameters::{
        ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder,
        EventsOptionsBuilder, ListVolumesOptionsBuilder, LogsOptionsBuilder, RemoveVolumeOptions,
        StatsOptionsBuilder, UploadToContainerOptionsBuilder,
    },
};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, future::join_all, stream::BoxStream};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio_util::io::ReaderStream;

use super::{
    Container, Engine, EngineError, gone, images::numeric_owner, is_of, key, log_line, terminal,
};
use crate::{
    archive::Gathered,
    causes,
    leases::PodKey,
    volumes::VolumeError,
    wire::{ExecRequest, Happening, PathStat, STDERR, STDOUT, ServiceStats, TerminalSize},
};

/// How much of a program's output is read at a time.
const OUTPUT: usize = 32 << 10;

/// How often is looked for the code of a program whose output has ended, and how long in between.
const EXIT_TRIES: usize = 100;
const EXIT_POLL: Duration = Duration::from_millis(50);

/// How long a file may take on its way into a container.
const UPLOAD: Duration = Duration::from_secs(24 * 3_600);

/// The code of a program that was ended by signal 9.
const KILLED: i64 = 128 + 9;

/// How many containers whose past is known are remembered while events are followed.
const MAX_PASTS: usize = 4_096;

/// A program that runs in a container.
pub(crate) struct Program {
    /// Its name in the engine.
    pub(crate) id: String,
    /// What it writes, with the byte that says where to.
    pub(crate) output: BoxStream<'static, Result<(u8, Bytes), DockerError>>,
    /// What it reads.
    pub(crate) input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl Engine {
    /// Runs a program in a container, with what the container may do and no more.
    pub(crate) async fn exec(
        &self,
        container: &Container,
        request: &ExecRequest,
    ) -> Result<Program, EngineError> {
        let tty = request.terminal.is_some();
        let options = CreateExecOptions {
            cmd: Some(request.command.clone()),
            env: Some(request.environment.clone()),
            attach_stdin: Some(request.stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(tty),
            ..CreateExecOptions::default()
        };
        let docker = self.of(container)?;
        let exec = docker.create_exec(&container.id, options).await?.id;
        let id = Self::program_name(container, exec.clone());
        if let (Some(size), Some(socket)) = (request.terminal, self.socket_of(container)) {
            let (said, stream) = terminal::attach(&socket, &exec).await?;
            // It may have ended already.
            let _too_late = self.resize_program(&id, size).await;
            let (from, input) = stream.into_split();
            let output =
                ReaderStream::with_capacity(std::io::Cursor::new(said).chain(from), OUTPUT);
            let output = output.map(|part| Ok((STDOUT, part?)));
            return Ok(Program { id, output: output.boxed(), input: Box::pin(input) });
        }
        let options = StartExecOptions { detach: false, tty, output_capacity: Some(OUTPUT) };
        match docker.start_exec(&exec, Some(options)).await? {
            StartExecResults::Attached { output, input } => {
                if let Some(size) = request.terminal {
                    // It may have ended already.
                    let _too_late = self.resize_program(&id, size).await;
                }
                let output = output.map_ok(|part| {
                    let channel = match &part {
                        LogOutput::StdErr { .. } => STDERR,
                        LogOutput::StdOut { .. }
                        | LogOutput::StdIn { .. }
                        | LogOutput::Console { .. } => STDOUT,
                    };
                    (channel, part.into_bytes())
                });
                Ok(Program { id, output: output.boxed(), input })
            }
            StartExecResults::Detached => Err(EngineError::NotAttached),
        }
    }

    /// Gives the terminal of a program another size.
    pub(crate) async fn resize_program(
        &self,
        program: &str,
        size: TerminalSize,
    ) -> Result<(), EngineError> {
        let (docker, exec, _) = self.program(program)?;
        let options = ResizeExecOptions { width: size.columns, height: size.rows };
        Ok(docker.resize_exec(exec, options).await?)
    }

    /// The code of a program whose output has ended; nothing if it goes on all the same.
    pub(crate) async fn exit_code(&self, program: &str) -> Result<Option<i64>, EngineError> {
        let (docker, exec, _) = self.program(program)?;
        for _ in 0..EXIT_TRIES {
            let found = docker.inspect_exec(exec).await?;
            if found.running != Some(true) {
                return Ok(found.exit_code);
            }
            tokio::time::sleep(EXIT_POLL).await;
        }
        Ok(None)
    }

    /// Sends a program a signal. False if it has ended, or runs on another machine: Docker sends none to programs.
    pub(crate) async fn signal(&self, program: &str, signal: Signal) -> Result<bool, EngineError> {
        let (docker, exec, is_here) = self.program(program)?;
        if !is_here {
            return Ok(false);
        }
        let found = docker.inspect_exec(exec).await?;
        let (Some(true), Some(pid), Some(container)) =
            (found.running, found.pid, found.container_id)
        else {
            return Ok(false);
        };
        let Ok(pid) = i32::try_from(pid) else { return Ok(false) };
        // The number may be another process's by now; only those of the container are meant.
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if pid <= 1 || !groups.contains(&container) {
            return Ok(false);
        }
        Ok(kill(Pid::from_raw(pid), signal).is_ok())
    }

    /// What is at `path` in a container.
    pub(crate) async fn stat(
        &self,
        container: &Container,
        path: &str,
    ) -> Result<PathStat, EngineError> {
        let options = ContainerArchiveInfoOptionsBuilder::new().path(path).build();
        let docker = self.of(container)?;
        let found = docker.get_container_archive_info(&container.id, Some(options)).await?;
        let config = self.details(container).await?.config.unwrap_or_default();
        // Go's bit for a folder; of a link, where it leads to decides.
        const FOLDER: u32 = 1 << 31;
        const LINK: u32 = 1 << 27;
        let mut folder = found.file_mode & FOLDER != 0;
        if found.file_mode & LINK != 0 && found.link_target != path {
            let options =
                ContainerArchiveInfoOptionsBuilder::new().path(&found.link_target).build();
            let target = docker.get_container_archive_info(&container.id, Some(options)).await;
            folder = target.is_ok_and(|target| target.file_mode & FOLDER != 0);
        }
        Ok(PathStat {
            name: found.name,
            size: u64::try_from(found.size).unwrap_or_default(),
            folder,
            user: config.user.as_deref().and_then(numeric_owner).unwrap_or_default(),
        })
    }

    /// What is at `path` in a container, as a tar.
    pub(crate) fn download(
        &self,
        container: &Container,
        path: &str,
    ) -> BoxStream<'static, Result<Bytes, EngineError>> {
        let docker = match self.of(container) {
            Ok(docker) => docker,
            Err(err) => return futures::stream::once(async { Err(err) }).boxed(),
        };
        let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
        let tar = docker.download_from_container(&container.id, Some(options));
        tar.map_err(EngineError::from).boxed()
    }

    /// Unpacks a tar in the folder `path` of a container.
    pub(crate) async fn upload(
        &self,
        container: &Container,
        path: &str,
        tar: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), EngineError> {
        let options =
            UploadToContainerOptionsBuilder::new().path(path).no_overwrite_dir_non_dir("1").build();
        let tar = bollard::body_try_stream(tar);
        // It answers when it is through.
        let docker = self.of(container)?.clone().with_timeout(UPLOAD);
        Ok(docker.upload_to_container(&container.id, Some(options), tar).await?)
    }

    /// What a container uses: every second, or once if `once`.
    pub(crate) fn stats(
        &self,
        service: String,
        container: &Container,
        once: bool,
    ) -> BoxStream<'static, Result<ServiceStats, EngineError>> {
        let docker = match self.of(container) {
            Ok(docker) => docker,
            Err(err) => return futures::stream::once(async { Err(err) }).boxed(),
        };
        let options = StatsOptionsBuilder::new().stream(true).build();
        let samples = docker.stats(&container.id, Some(options));
        let (engine, container) = (self.clone(), container.clone());
        // The first one has nothing before it to be compared with.
        let samples = samples.skip(1).take(if once { 1 } else { usize::MAX });
        samples
            .map_err(EngineError::from)
            .and_then(move |sample| {
                let (engine, container) = (engine.clone(), container.clone());
                let service = service.clone();
                async move {
                    let details = engine.details(&container).await?;
                    let host = details.host_config.unwrap_or_default();
                    let number = |value: Option<i64>| value.and_then(|v| u64::try_from(v).ok());
                    Ok(ServiceStats {
                        cpu_limit: number(host.nano_cpus).unwrap_or_default() / 1_000_000,
                        restarts: number(details.restart_count).unwrap_or_default(),
                        ..measured(service, &sample)
                    })
                }
            })
            .boxed()
    }

    /// What happens to the containers of this provider's pods, from `since` on.
    pub(crate) fn happenings(
        &self,
        since: SystemTime,
    ) -> BoxStream<'static, Result<(PodKey, Happening), DockerError>> {
        let mut filters = self.mine();
        filters.insert("type".into(), vec!["container".into()]);
        let wanted = ["die", "oom", "kill", "start", "health_status", "destroy"];
        filters.insert("event".into(), wanted.map(str::to_owned).to_vec());
        let mut pasts = Pasts::default();
        if let Some(swarm) = &self.swarm {
            let events = swarm.events(filters, since);
            let told = events.filter_map(move |event| {
                let told = pasts.tell(&event);
                async move { told.map(Ok) }
            });
            return told.boxed();
        }
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
        self.docker
            .events(Some(options))
            .try_filter_map(move |event| {
                let told = pasts.tell(&event);
                async move { Ok(told) }
            })
            .boxed()
    }

    /// Stops some containers, as their images and pods say, or freezes them. In a cluster it freezes them in any case: the
    /// swarm would run others in place of those that were stopped.
    pub(crate) async fn hold(&self, containers: &[&Container], freeze: bool) {
        join_all(containers.iter().map(|container| async {
            if (freeze || container.task.is_some())
                && let Ok(docker) = self.of(container)
            {
                // One that does not run needs no freezing.
                let _not_running = docker.pause_container(&container.id).await;
            }
        }))
        .await;
        if !freeze {
            let stopped = containers.iter().filter(|container| container.task.is_none());
            self.stop_containers(stopped.copied()).await;
        }
    }

    /// Has containers that were held go on. What is gone by now is gone.
    pub(crate) async fn release(&self, ids: &[String]) -> Result<(), EngineError> {
        let pods = match self.swarm.is_some() && !ids.is_empty() {
            true => self.pods().await?,
            false => BTreeMap::new(),
        };
        let tasks = pods.values().flat_map(|found| found.containers());
        let tasks: HashMap<&str, &Container> = tasks
            .filter(|container| container.task.is_some())
            .map(|container| (container.id.as_str(), container))
            .collect();
        for id in ids {
            let docker = match tasks.get(id.as_str()) {
                Some(container) => self.of(container)?,
                None => &self.docker,
            };
            let state = match docker.inspect_container(id, None).await {
                Err(err) if super::is_missing(&err) => continue,
                found => found?.state.unwrap_or_default(),
            };
            if state.paused == Some(true) {
                docker.unpause_container(id).await?;
            } else if state.running != Some(true) && !tasks.contains_key(id.as_str()) {
                docker.start_container(id, None).await?;
            }
        }
        Ok(())
    }

    /// Keeps what containers wrote, before they are removed. That it cannot be kept is no reason for them to stay.
    pub(super) async fn keep_logs<'a>(
        &self,
        key: PodKey,
        containers: impl Iterator<Item = (&'a str, &'a Container)>,
    ) {
        // Those of add-ons are nobody's to fetch.
        if key.is_addon() {
            return;
        }
        let folder = self.records.logs(key);
        for (service, container) in containers {
            // Each takes some memory while it is gathered.
            let Ok(_turn) = self.archiving.acquire().await else { return };
            let options = LogsOptionsBuilder::new().stdout(true).stderr(true).timestamps(true);
            let Ok(docker) = self.of(container) else { continue };
            let lines = docker.logs(&container.id, Some(options.build()));
            let mut gathered = Gathered::default();
            let all = lines.try_for_each(|output| {
                gathered.add(&log_line(service, &output));
                async { Ok(()) }
            });
            let (all, lease) = (all.await, key.lease);
            let (folder, service, id) = (folder.clone(), service.to_owned(), container.id.clone());
            let kept = tokio::task::spawn_blocking(move || gathered.keep(&folder, &service, &id));
            if let Err(err) = all {
                let cause = causes(&err);
                tracing::warn!(
                    lease.id = lease,
                    error = cause,
                    "logs of lease {lease} are not whole"
                );
            }
            if let Ok(Err(err)) = kept.await {
                tracing::warn!(lease.id = lease, error = %err, "logs of lease {lease} are not kept");
            }
        }
    }

    /// Removes what is left of a lease but its volumes, which are kept. True if there are any.
    pub(crate) async fn wind_up(&self, key: PodKey) -> Result<bool, EngineError> {
        self.retire(key, |_any| true).await?;
        self.egress.forget(key).await?;
        let options = ListVolumesOptionsBuilder::new().filters(&self.mine()).build();
        let volumes = self.docker.list_volumes(Some(options)).await?.volumes.unwrap_or_default();
        for volume in volumes.iter().filter(|volume| is_of(Some(&volume.labels), key)) {
            gone(self.docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await)?;
        }
        let prefix = format!("{}-", key.prefix());
        for name in self.volumes.names().map_err(VolumeError::Io)? {
            if name.starts_with(&prefix) {
                self.volumes.keep(&name).await?;
            }
        }
        let kept = self.volumes.kept().map_err(VolumeError::Io)?;
        Ok(kept.iter().any(|volume| volume.name.starts_with(&prefix)))
    }
}

/// What was seen last of containers, so that it can be told what an event means.
#[derive(Debug, Default)]
struct Pasts {
    known: HashMap<String, Past>,
    order: VecDeque<String>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Past {
    /// The provider stops it.
    stopping: bool,
    out_of_memory: bool,
    ended: bool,
    unhealthy: bool,
}

impl Pasts {
    /// What an event of the engine means for a lease, if anything.
    fn tell(&mut self, event: &EventMessage) -> Option<(PodKey, Happening)> {
        let actor = event.actor.as_ref()?;
        let (id, labels) = (actor.id.as_ref()?, actor.attributes.as_ref()?);
        let (key, service) = (key(labels)?, labels.get("roadstead.service")?.clone());
        if !self.known.contains_key(id) {
            self.order.push_back(id.clone());
            if self.order.len() > MAX_PASTS
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
        let past = self.known.entry(id.clone()).or_default();
        let what = match event.action.as_deref()? {
            // A signal that came from outside: the provider's wish, for the pod itself has no other way.
            "kill" => {
                past.stopping = true;
                return None;
            }
            "oom" => {
                past.out_of_memory = true;
                return None;
            }
            "die" => {
                let Past { stopping, out_of_memory, .. } = *past;
                *past = Past { ended: !stopping, ..Past::default() };
                let code = labels.get("exitCode").and_then(|code| code.parse::<i64>().ok());
                let code = code.unwrap_or_default();
                // What was killed before may have been another process in the container.
                let out_of_memory = out_of_memory && code == KILLED;
                match stopping {
                    true => Happening::Stopped { service },
                    false => Happening::Exited { service, code, out_of_memory },
                }
            }
            "start" => {
                let again = past.ended;
                *past = Past::default();
                return again.then_some((key, Happening::Restarted { service }));
            }
            "health_status: unhealthy" => {
                let before = std::mem::replace(&mut past.unhealthy, true);
                return (!before).then_some((key, Happening::HealthLost { service }));
            }
            "health_status: healthy" => {
                let before = std::mem::replace(&mut past.unhealthy, false);
                return before.then_some((key, Happening::HealthRegained { service }));
            }
            "destroy" => {
                self.known.remove(id);
                return None;
            }
            _another => return None,
        };
        Some((key, what))
    }
}

/// What one sample of the engine says.
fn measured(service: String, sample: &ContainerStatsResponse) -> ServiceStats {
    let cpu = |stats: &Option<bollard::models::ContainerCpuStats>| {
        let stats = stats.clone().unwrap_or_default();
        let used = stats.cpu_usage.and_then(|usage| usage.total_usage).unwrap_or_default();
        (used, stats.system_cpu_usage.unwrap_or_default(), stats.online_cpus.unwrap_or(1))
    };
    let (now, before) = (cpu(&sample.cpu_stats), cpu(&sample.precpu_stats));
    let used = u128::from(now.0.saturating_sub(before.0));
    let passed = u128::from(now.1.saturating_sub(before.1));
    let share = (used * u128::from(now.2) * 1_000).checked_div(passed).unwrap_or_default();
    let memory = sample.memory_stats.clone().unwrap_or_default();
    let of_memory = |name: &str| memory.stats.as_ref().and_then(|stats| stats.get(name)).copied();
    // The two versions of cgroups call it differently.
    let idle = of_memory("total_inactive_file").or(of_memory("inactive_file")).unwrap_or_default();
    let networks = sample.networks.iter().flat_map(HashMap::values);
    let (received, sent) = networks.fold((0, 0), |(received, sent), network| {
        let (rx, tx) = (network.rx_bytes.unwrap_or_default(), network.tx_bytes.unwrap_or_default());
        (received + rx, sent + tx)
    });
    let disks = sample.blkio_stats.clone().and_then(|stats| stats.io_service_bytes_recursive);
    let disk = |wanted: &str| {
        let entries = disks.iter().flatten();
        let of = entries
            .filter(|entry| entry.op.as_deref().is_some_and(|op| op.eq_ignore_ascii_case(wanted)));
        of.filter_map(|entry| entry.value).sum()
    };
    ServiceStats {
        service,
        time: crate::records::rfc3339(SystemTime::now()),
        cpu: u64::try_from(share).unwrap_or(u64::MAX),
        cpu_limit: 0,
        memory: memory.usage.unwrap_or_default().saturating_sub(idle),
        memory_limit: memory.limit.unwrap_or_default(),
        received,
        sent,
        read: disk("read"),
        written: disk("write"),
        pids: sample.pids_stats.as_ref().and_then(|pids| pids.current).unwrap_or_default(),
        restarts: 0,
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    fn event(id: &str, action: &str, code: &str) -> EventMessage {
        let labels = [
            ("roadstead.lease", "7".to_owned()),
            ("roadstead.opening", format!("0x{}", "ab".repeat(32))),
            ("roadstead.service", "web".to_owned()),
            ("exitCode", code.to_owned()),
        ];
        let attributes = labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let actor = EventActor { id: Some(id.into()), attributes: Some(attributes) };
        EventMessage { action: Some(action.into()), actor: Some(actor), ..EventMessage::default() }
    }

    #[test]
    fn events_are_told_for_what_they_mean() {
        let mut pasts = Pasts::default();
        let mut check = |action: &str, code: &str, wanted: Option<Happening>| {
            let told = pasts.tell(&event("one", action, code)).map(|(key, what)| {
                assert_eq!(key.lease, 7);
                what
            });
            assert_eq!(told, wanted, "{action}");
        };
        let service = || "web".to_owned();
        let exited = |code, out_of_memory| {
            Some(Happening::Exited { service: service(), code, out_of_memory })
        };
        check("start", "", None);
        check("die", "3", exited(3, false));
        check("start", "", Some(Happening::Restarted { service: service() }));
        check("oom", "", None);
        check("die", "1", exited(1, false));
        check("start", "", Some(Happening::Restarted { service: service() }));
        check("oom", "", None);
        check("die", "137", exited(137, true));
        check("start", "", Some(Happening::Restarted { service: service() }));
        check("health_status: healthy", "", None);
        check("health_status: unhealthy", "", Some(Happening::HealthLost { service: service() }));
        check("health_status: unhealthy", "", None);
        check("health_status: healthy", "", Some(Happening::HealthRegained { service: service() }));
        check("kill", "", None);
        check("die", "143", Some(Happening::Stopped { service: service() }));
        check("start", "", None);
        check("destroy", "", None);
        check("exec_die", "1", None);
    }

    #[test]
    fn the_pasts_of_few_containers_are_remembered() {
        let mut pasts = Pasts::default();
        for id in 0..MAX_PASTS + 10 {
            pasts.tell(&event(&id.to_string(), "start", ""));
        }
        assert_eq!(pasts.known.len(), MAX_PASTS);
    }

    #[test]
    fn samples_are_measured() {
        let sample: ContainerStatsResponse = serde_json::from_value(serde_json::json!({
            "cpu_stats": { "cpu_usage": { "total_usage": 600 }, "system_cpu_usage": 4_000, "online_cpus": 2 },
            "precpu_stats": { "cpu_usage": { "total_usage": 100 }, "system_cpu_usage": 2_000 },
            "memory_stats": { "usage": 1_000, "limit": 5_000, "stats": { "total_inactive_file": 300 } },
            "networks": { "eth0": { "rx_bytes": 5, "tx_bytes": 6 }, "eth1": { "rx_bytes": 1 } },
            "blkio_stats": { "io_service_bytes_recursive": [
                { "op": "Read", "value": 7 }, { "op": "Write", "value": 8 }, { "op": "read", "value": 1 },
            ] },
            "pids_stats": { "current": 3 },
        }))
        .unwrap();
        let stats = measured("web".into(), &sample);
        assert_eq!((stats.cpu, stats.memory, stats.memory_limit), (500, 700, 5_000));
        assert_eq!((stats.received, stats.sent, stats.read, stats.written), (6, 6, 8, 8));
        assert_eq!(stats.pids, 3);
        let nothing = measured("web".into(), &ContainerStatsResponse::default());
        assert_eq!((nothing.cpu, nothing.memory), (0, 0));
    }
}
