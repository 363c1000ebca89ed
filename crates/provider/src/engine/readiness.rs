//! Whether what was started is well.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use bollard::{
    Docker,
    errors::Error as DockerError,
    exec::{CreateExecOptions, StartExecOptions, StartExecResults},
    models::{
        ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummaryStateEnum,
        HealthStatusEnum,
    },
    query_parameters::LogsOptionsBuilder,
};
use futures::StreamExt as _;
use protocol::pod::{Restart, Service, Transport};

use super::{Container, Engine, EngineError};

/// How long a health check may take that names no timeout: what Docker gives it.
const CHECK_PATIENCE: Duration = Duration::from_secs(30);

/// After how many crashes a starting service is given up. The engine doubles the time between two of them, so that this
/// takes some seconds, in which what the service waits for may come up.
const CRASHES: i64 = 6;

/// How far a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    NotYet(String),
    /// It ended with a failure and will not be started again.
    Failed(String),
}

impl Engine {
    /// How far a service is: by its health check if it has one, else by whether it listens where it should.
    pub(crate) async fn readiness(
        &self,
        container: &Container,
        service: &Service,
    ) -> Result<Readiness, EngineError> {
        if let Some(task) = &container.task {
            return Box::pin(self.readiness_in(container, task, service)).await;
        }
        let found = self.docker.inspect_container(&container.id, None).await?;
        let state = found.state.clone().unwrap_or_default();
        let code = state.exit_code.unwrap_or_default();
        match state.status {
            Some(ContainerStateStatusEnum::RUNNING) => (),
            Some(ContainerStateStatusEnum::EXITED) if ended_well(service, code) => {
                return Ok(Readiness::Ready);
            }
            Some(ContainerStateStatusEnum::EXITED) if service.restart == Restart::No => {
                let words = self.last_words(&self.docker, &container.id, code).await;
                return Ok(Readiness::Failed(words));
            }
            Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::RESTARTING)
                if code != 0 =>
            {
                let why = self.last_words(&self.docker, &container.id, code).await;
                return Ok(match found.restart_count.unwrap_or_default() < CRASHES {
                    true => Readiness::NotYet(why),
                    false => Readiness::Failed(why),
                });
            }
            other => {
                let state = other.map_or("not there".into(), |state| state.to_string());
                return Ok(Readiness::NotYet(format!("it is {state}")));
            }
        }
        let health = state.health.and_then(|health| health.status);
        if health == Some(HealthStatusEnum::HEALTHY) {
            return Ok(Readiness::Ready);
        }
        let check = found.config.and_then(|config| config.healthcheck).unwrap_or_default();
        let patience = match check.timeout.map(u64::try_from) {
            Some(Ok(nanos)) if nanos > 0 => Duration::from_nanos(nanos),
            _default => CHECK_PATIENCE,
        };
        let test = check.test;
        let command = match test.as_deref() {
            Some([kind, words @ ..]) if kind == "CMD" => Some(words.to_vec()),
            Some([kind, line]) if kind == "CMD-SHELL" => {
                Some(vec!["/bin/sh".into(), "-c".into(), line.clone()])
            }
            _ => None,
        };
        match command {
            // The engine's own first check comes an interval late.
            Some(command) => {
                let check = self.check(&container.id, command);
                match tokio::time::timeout(patience, check).await {
                    // It ended in between.
                    Ok(Err(EngineError::Docker(DockerError::DockerResponseServerError {
                        message,
                        ..
                    }))) => Ok(Readiness::NotYet(message)),
                    Ok(checked) => checked,
                    // The engine goes on waiting for the output of a check whose container ended under it.
                    Err(_late) => {
                        let secs = patience.as_secs_f64();
                        Ok(Readiness::NotYet(format!(
                            "its health check takes longer than {secs} s"
                        )))
                    }
                }
            }
            None => Ok(listens(container, service).await),
        }
    }

    /// Whether a service has done what it was to do once.
    pub(crate) async fn completion(
        &self,
        container: &Container,
        service: &Service,
    ) -> Result<Readiness, EngineError> {
        if container.task.is_some() {
            if container.state == ContainerSummaryStateEnum::RUNNING {
                return Ok(Readiness::NotYet("it has not ended yet".into()));
            }
            return self.readiness(container, service).await;
        }
        let found = self.docker.inspect_container(&container.id, None).await?;
        match found.state.unwrap_or_default().status {
            Some(ContainerStateStatusEnum::RUNNING) => {
                Ok(Readiness::NotYet("it has not ended yet".into()))
            }
            _ => self.readiness(container, service).await,
        }
    }

    /// Whether the engine gave a service's health up.
    pub(crate) async fn is_unhealthy(&self, container: &Container) -> Result<bool, EngineError> {
        // A swarm ends what is not healthy, and runs another one.
        if let Some(task) = &container.task {
            return Ok(task.failures > 0);
        }
        let state = self.docker.inspect_container(&container.id, None).await?.state;
        let health = state.and_then(|state| state.health?.status);
        Ok(health == Some(HealthStatusEnum::UNHEALTHY))
    }

    async fn check(&self, id: &str, command: Vec<String>) -> Result<Readiness, EngineError> {
        let options = CreateExecOptions {
            cmd: Some(command),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..Default::default()
        };
        let exec = self.docker.create_exec(id, options).await?.id;
        let mut said = String::new();
        if let StartExecResults::Attached { mut output, .. } =
            self.docker.start_exec(&exec, None::<StartExecOptions>).await?
        {
            while let Some(part) = output.next().await {
                if said.len() < 500 {
                    said.push_str(&part?.to_string());
                }
            }
        }
        let code = self.docker.inspect_exec(&exec).await?.exit_code;
        Ok(match code {
            Some(0) => Readiness::Ready,
            _ => Readiness::NotYet(format!("its health check fails: {}", said.trim())),
        })
    }

    /// How a container ended, with the last lines that it wrote.
    pub(super) async fn last_words(&self, docker: &Docker, id: &str, code: i64) -> String {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail("3").build();
        let mut lines: Vec<String> = docker
            .logs(id, Some(options))
            .filter_map(|part| async { part.ok().map(|part| part.to_string()) })
            .collect()
            .await;
        // Who crashes again and again says the same.
        lines.dedup();
        let said: String = lines.concat().trim().chars().take(500).collect();
        match said.is_empty() {
            true => format!("it ended with code {code} and wrote nothing"),
            false => format!("it ended with code {code}: {said}"),
        }
    }
}

/// Whether a container needs nothing: it runs, is about to, or ended as it was meant to.
pub(crate) fn is_up(container: &Container, service: &Service) -> bool {
    match container.state {
        ContainerSummaryStateEnum::RUNNING
        | ContainerSummaryStateEnum::RESTARTING
        | ContainerSummaryStateEnum::PAUSED => true,
        ContainerSummaryStateEnum::EXITED => {
            // Those that failed too often are left to their policy as well.
            matches!(service.restart, Restart::No | Restart::OnFailure { .. }) && !container.lost
        }
        ContainerSummaryStateEnum::CREATED
        | ContainerSummaryStateEnum::REMOVING
        | ContainerSummaryStateEnum::DEAD
        | ContainerSummaryStateEnum::STOPPING
        | ContainerSummaryStateEnum::EMPTY => false,
    }
}

/// Whether a service that ended is not started again, and need not be.
pub(super) fn ended_well(service: &Service, code: i64) -> bool {
    code == 0 && matches!(service.restart, Restart::No | Restart::OnFailure { .. })
}

/// Without a health check, a service that says where it listens is ready when it does.
pub(super) async fn listens(container: &Container, service: &Service) -> Readiness {
    if service.networks.as_ref().is_some_and(BTreeMap::is_empty) {
        return Readiness::Ready;
    }
    if container.task.is_none() && container.ip.is_none() {
        return Readiness::NotYet("it has no address".into());
    }
    for port in service.ports.iter().filter(|p| p.transport == Transport::Tcp) {
        let Some(address) = container.at(Transport::Tcp, port.number.get()) else {
            // A swarm publishes nothing of what is on internal networks alone.
            continue;
        };
        let connect = tokio::net::TcpStream::connect(address);
        if !matches!(tokio::time::timeout(Duration::from_secs(1), connect).await, Ok(Ok(_))) {
            return Readiness::NotYet(format!("it does not listen on port {} yet", port.number));
        }
    }
    Readiness::Ready
}

/// What a container's health checks say; nothing of a time before `thawed`, when it could not answer.
pub(crate) fn health(
    details: &ContainerInspectResponse,
    thawed: Option<SystemTime>,
) -> Option<HealthStatusEnum> {
    let health = details.state.as_ref()?.health.as_ref()?;
    let last = health.log.as_ref().and_then(|log| parse_time(log.last()?.start.as_ref()?));
    let stale = thawed.is_some_and(|thawed| last.is_some_and(|last| last < thawed));
    let status = health.status?;
    let outdated = stale && status == HealthStatusEnum::UNHEALTHY;
    Some(if outdated { HealthStatusEnum::STARTING } else { status })
}

pub(super) fn parse_time(text: &str) -> Option<SystemTime> {
    let format = &time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::parse(text, format).ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_from_before_a_thaw_does_not_count() {
        let details: ContainerInspectResponse = serde_json::from_value(serde_json::json!({
            "State": { "Health": {
                "Status": "unhealthy",
                "Log": [{ "Start": "2026-01-31T12:00:00.5Z", "ExitCode": 1 }],
            } },
        }))
        .unwrap();
        let at = |text: &str| parse_time(text);
        assert_eq!(health(&details, None), Some(HealthStatusEnum::UNHEALTHY));
        let before = at("2026-01-31T11:59:59Z");
        assert_eq!(health(&details, before), Some(HealthStatusEnum::UNHEALTHY));
        let after = at("2026-01-31T12:00:01Z");
        assert_eq!(health(&details, after), Some(HealthStatusEnum::STARTING));
        assert_eq!(health(&ContainerInspectResponse::default(), after), None);
    }
}
