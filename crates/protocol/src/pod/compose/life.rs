//! When a service starts, whether it is well, and what happens when it ends.

use std::collections::{BTreeMap, BTreeSet};

use super::Reader;
use crate::pod::{
    Condition, Healthcheck, Label, Restart, Test,
    names::show,
    tree::{At, Fields},
};

/// What a service waits for.
#[derive(Default)]
pub(super) struct Dependencies {
    pub(super) all: BTreeMap<Label, Condition>,
    /// Those that may fail.
    pub(super) optional: BTreeSet<Label>,
}

impl Reader<'_> {
    pub(super) fn dependencies(&self, fields: &Fields<'_>) -> Dependencies {
        let mut found = Dependencies::default();
        if let Some(at) = fields.get("depends_on") {
            self.depends_on(&at, &mut found);
        }
        // A link is a dependency; under its service's name it is reached anyway.
        for at in fields.get("links").map(|at| at.items()).unwrap_or_default() {
            let Some(text) = at.text() else { continue };
            match text.split_once(':') {
                Some((service, alias)) if service != alias => at.fail(format!(
                    "other names are given by the service that has them; write {} under services.{service}.networks.default.aliases",
                    show(alias)
                )),
                Some((service, _)) => self.link(&at, service, &mut found),
                None => self.link(&at, &text, &mut found),
            }
        }
        found
    }

    fn link(&self, at: &At<'_>, service: &str, found: &mut Dependencies) {
        if let Some(service) = at.check(service.parse()) {
            found.all.entry(service).or_insert(Condition::ServiceStarted);
        }
    }

    fn depends_on(&self, at: &At<'_>, found: &mut Dependencies) {
        if at.value.is_array() {
            let names = at.items().into_iter().filter_map(|at| at.parse());
            return found.all.extend(names.map(|name| (name, Condition::ServiceStarted)));
        }
        for (name, at) in at.entries() {
            let Some(name) = at.check(name.parse::<Label>()) else { continue };
            let mut condition = Condition::ServiceStarted;
            if !at.value.is_null() {
                let Some(fields) = at.fields() else { continue };
                if let Some(at) = fields.get("condition") {
                    match at.text().as_deref() {
                        Some("service_started") | None => (),
                        Some("service_healthy") => condition = Condition::ServiceHealthy,
                        Some("service_completed_successfully") => {
                            condition = Condition::ServiceCompletedSuccessfully;
                        }
                        Some(other) => at.fail(format!(
                            "{} is no condition; write service_started, service_healthy or service_completed_successfully",
                            show(other)
                        )),
                    }
                }
                if fields.get("required").and_then(|at| at.truth()) == Some(false) {
                    found.optional.insert(name.clone());
                }
                // A changed pod starts all of its services anew, so this holds whatever it says.
                let _either = fields.get("restart").and_then(|at| at.truth());
                fields.finish(&[]);
            }
            found.all.insert(name, condition);
        }
    }

    pub(super) fn healthcheck(&self, at: &At<'_>) -> Option<Healthcheck> {
        let fields = at.fields()?;
        let time = |name| fields.get(name).and_then(|at| self.milliseconds(&at));
        let mut check = Healthcheck {
            interval: time("interval"),
            retries: fields.get("retries").and_then(|at| at.whole()),
            start_period: time("start_period"),
            test: fields.get("test").and_then(|at| self.test(&at)),
            timeout: time("timeout"),
        };
        if fields.get("disable").and_then(|at| at.truth()) == Some(true) {
            check = Healthcheck { test: Some(Test::Disabled), ..Healthcheck::default() };
        }
        fields.finish(&[(
            "start_interval",
            "this needs a newer Docker than providers have to run; use interval",
        )]);
        (check != Healthcheck::default()).then_some(check)
    }

    fn test(&self, at: &At<'_>) -> Option<Test> {
        if at.value.is_string() {
            return at.text().map(Test::Shell);
        }
        if !at.value.is_array() {
            at.fail("write a line of text, or a list that begins with CMD, CMD-SHELL or NONE");
            return None;
        }
        let words: Option<Vec<String>> = at.items().iter().map(At::value_text).collect();
        let mut words = words?.into_iter();
        match (words.next().as_deref(), words.len()) {
            (Some("NONE"), 0) => Some(Test::Disabled),
            (Some("CMD"), 1..) => Some(Test::Exec(words.collect())),
            (Some("CMD-SHELL"), 1) => words.next().map(Test::Shell),
            (Some(_) | None, _) => {
                at.fail("write [\"CMD\", program, …], [\"CMD-SHELL\", line] or [\"NONE\"]");
                None
            }
        }
    }

    pub(super) fn restart(
        &self,
        name: &Label,
        fields: &Fields<'_>,
        deploy: Option<&Fields<'_>>,
    ) -> Restart {
        let restart = fields.get("restart").map(|at| self.policy(&at));
        let deployed = deploy.and_then(|deploy| deploy.get("restart_policy"));
        if let Some(policy) = deployed.and_then(|at| self.deploy_policy(&at)) {
            return policy;
        }
        restart.unwrap_or_else(|| {
            self.log.note(format!(
                "services.{name}: it stays down once it ends; write restart: unless-stopped to have it restarted"
            ));
            Restart::No
        })
    }

    fn policy(&self, at: &At<'_>) -> Restart {
        // YAML 1.1 reads `no` as false, and so do some who write it.
        match at.scalar().as_deref() {
            None => Restart::No,
            Some("no" | "false") => Restart::No,
            Some("always") => Restart::Always,
            Some("unless-stopped") => Restart::UnlessStopped,
            Some("on-failure") => Restart::OnFailure { max: None },
            Some(other) => {
                let max = other.strip_prefix("on-failure:").and_then(|max| max.parse().ok());
                if max.is_none() {
                    at.fail(format!(
                        "{} is no restart policy; write \"no\", always, unless-stopped, on-failure or on-failure:3",
                        show(other)
                    ));
                }
                Restart::OnFailure { max }
            }
        }
    }

    /// Swarm's way to say it, which wins over the other, as in Compose.
    fn deploy_policy(&self, at: &At<'_>) -> Option<Restart> {
        let fields = at.fields()?;
        let condition = fields.require("condition", "write none, on-failure or any");
        let max = fields.get("max_attempts").and_then(|at| at.whole());
        fields.finish(&[
            ("delay", "the engine chooses the pause between restarts; remove this"),
            ("window", "the engine chooses the pause between restarts; remove this"),
        ]);
        let at = condition?;
        match at.text()?.as_str() {
            "none" => Some(Restart::No),
            "any" => Some(Restart::Always),
            "on-failure" => Some(Restart::OnFailure { max }),
            other => {
                at.fail(format!("{} is no condition; write none, on-failure or any", show(other)));
                None
            }
        }
    }
}
