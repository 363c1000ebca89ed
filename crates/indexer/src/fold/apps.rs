//! Apps: what keepers keep deployed.

use chain::abi::apps::{Apps::AppsEvents, IApps::Limits};
use protocol::amount::Rate;
use store::{
    app::{self, App},
    codec::text,
    event::Subject,
    replica::{self, Replica},
};

use super::{At, State, Why};

pub(super) fn want(state: &mut State, event: &AppsEvents) {
    let id = match event {
        AppsEvents::Registered(e) => e.id,
        AppsEvents::NameLost(e) => e.id,
        AppsEvents::SpecSet(e) => e.id,
        AppsEvents::LimitsSet(e) => e.id,
        AppsEvents::KeeperSet(e) => e.id,
        AppsEvents::Deployed(e) => {
            state.replica.want(replica::Key { app: e.id, replica: e.replica.into() });
            e.id
        }
        AppsEvents::Retired(e) => e.id,
    };
    state.app.want(app::Key { id });
}

pub(super) fn apply(state: &mut State, event: &AppsEvents, at: At) -> Result<Subject, Why> {
    match event {
        AppsEvents::Registered(e) => {
            let r = &e.app;
            let row = state.app.edit(app::Key { id: e.id })?;
            if row.is_some() {
                return Err(Why::Exists(format!("app {}", e.id)));
            }
            let app = row.insert(App {
                id: e.id,
                owner: e.owner,
                keeper: e.keeper,
                account: r.account,
                slot: r.slot.to(),
                name: text(&r.name).into_owned(),
                named: true,
                spec: r.spec,
                uri: text(&r.uri).into_owned(),
                fee: Rate(r.fee),
                replicas: 0,
                max_lock: 0,
                max_rate: Rate(0),
                pods: r.limits.pods,
                registered_at: at.time,
                retired_at: None,
            });
            limit(app, &r.limits);
            Ok(about(app))
        }
        AppsEvents::NameLost(e) => {
            let app = app_of(state, e.id)?;
            app.named = false;
            Ok(about(app))
        }
        AppsEvents::SpecSet(e) => {
            let app = app_of(state, e.id)?;
            (app.spec, app.uri) = (e.spec, text(&e.uri).into_owned());
            Ok(about(app))
        }
        AppsEvents::LimitsSet(e) => {
            let app = app_of(state, e.id)?;
            limit(app, &e.limits);
            Ok(about(app))
        }
        AppsEvents::KeeperSet(e) => {
            let app = app_of(state, e.id)?;
            (app.keeper, app.fee) = (e.keeper, Rate(e.fee));
            Ok(about(app))
        }
        AppsEvents::Deployed(e) => {
            let key = replica::Key { app: e.id, replica: e.replica.into() };
            *state.replica.edit(key)? = Some(Replica {
                app: e.id,
                replica: e.replica.into(),
                lease: e.lease,
                deployer: e.by,
                time: at.time,
            });
            let subject = about(app_of(state, e.id)?);
            Ok(Subject { lease: Some(e.lease), ..subject })
        }
        AppsEvents::Retired(e) => {
            let app = app_of(state, e.id)?;
            (app.named, app.retired_at) = (false, Some(at.time));
            Ok(about(app))
        }
    }
}

fn limit(app: &mut App, limits: &Limits) {
    app.replicas = limits.replicas.into();
    app.max_lock = limits.maxLock;
    app.max_rate = Rate(limits.maxRate);
    app.pods = limits.pods;
}

fn about(app: &App) -> Subject {
    Subject { account: Some(app.account), ..Subject::default() }
}

fn app_of(state: &mut State, id: u64) -> Result<&mut App, Why> {
    let app = state.app.edit(app::Key { id })?;
    app.as_mut().ok_or_else(|| Why::Missing(format!("app {id}")))
}
