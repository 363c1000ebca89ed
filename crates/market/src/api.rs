//! The routes of the API, and what it is by OpenAPI. Each handler asks one or two questions that an index answers.

mod accounts;
pub(crate) mod apps;
mod events;
mod leases;
mod orders;
mod providers;
mod search;

use std::sync::Arc;

use axum::{Json, extract::State, http::header::CACHE_CONTROL, response::IntoResponse};
use utoipa::{
    OpenApi as _,
    openapi::{
        Content, OpenApi, Ref, RefOr, ResponseBuilder,
        schema::{ArrayItems, Schema},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Market, Problem,
    answer::One,
    changes::{__path_changes, changes},
    now,
    query::{Asked, Nothing},
    view,
};

/// What is said of the API as a whole.
#[derive(Debug, utoipa::OpenApi)]
#[openapi(
    info(
        title = "Roadstead market",
        version = "1",
        description = "What the chain's mirror holds. An answer is the state after one block, which it names. It may be \
                       a lie: who acts on it verifies it on the chain. docs/market.md says how to use it.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    components(schemas(Problem))
)]
struct Description;

/// What may go wrong with each request, beside what a route says itself.
const PROBLEMS: [(&str, &str); 4] = [
    ("400", "The request cannot be understood, or asks for what no index serves."),
    ("408", "The answer took too long."),
    ("429", "Too many requests; `Retry-After` says when there may be more."),
    ("503", "The mirror cannot be read for the time being."),
];

/// All routes under `/v1`, and their description.
pub(crate) fn routes() -> (axum::Router<Arc<Market>>, OpenApi) {
    let routes = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(market))
        .routes(routes!(providers::list))
        .routes(routes!(search::search))
        .routes(routes!(search::why_not))
        .routes(routes!(providers::one))
        .routes(routes!(providers::leases))
        .routes(routes!(providers::prices))
        .routes(routes!(providers::orders))
        .routes(routes!(providers::events))
        .routes(routes!(leases::list))
        .routes(routes!(leases::one))
        .routes(routes!(leases::events))
        .routes(routes!(orders::list))
        .routes(routes!(orders::one))
        .routes(routes!(orders::bids))
        .routes(routes!(apps::list))
        .routes(routes!(apps::one))
        .routes(routes!(apps::replicas))
        .routes(routes!(accounts::list))
        .routes(routes!(accounts::one))
        .routes(routes!(accounts::streams))
        .routes(routes!(accounts::leases))
        .routes(routes!(accounts::events))
        .routes(routes!(events::list))
        .routes(routes!(changes));
    let (routes, mut api) = routes.split_for_parts();
    for (path, item) in &mut api.paths.paths {
        for operation in item.get.iter_mut().chain(&mut item.post) {
            let responses = &mut operation.responses.responses;
            if !["/v1/market", "/v1/changes"].contains(&path.as_str()) {
                let same =
                    ResponseBuilder::new().description("The client has this answer already.");
                responses.insert("304".into(), same.build().into());
            }
            for (status, meaning) in PROBLEMS {
                let problem = Content::new(Some(Ref::from_schema_name("Problem")));
                let response = ResponseBuilder::new().description(meaning);
                let response = response.content("application/problem+json", problem).build();
                responses.entry(status.into()).or_insert(response.into());
            }
        }
    }
    name_what_answers_hold(&mut api);
    (routes, api)
}

/// Lets the schemas of pages and single answers refer to those of what they hold, which the derivation repeats in them.
fn name_what_answers_hold(api: &mut OpenApi) {
    let Some(components) = &mut api.components else { return };
    for (name, schema) in &mut components.schemas {
        let Some((_, held)) = name.split_once('_') else { continue };
        let RefOr::T(Schema::Object(answer)) = schema else { continue };
        let held = Ref::from_schema_name(held);
        if let Some(item) = answer.properties.get_mut("item") {
            *item = held.into();
        } else if let Some(RefOr::T(Schema::Array(items))) = answer.properties.get_mut("items") {
            items.items = ArrayItems::RefOrSchema(Box::new(held.into()));
        }
    }
}

/// The description of all routes, as it is served.
pub(crate) fn description(api: &OpenApi) -> String {
    // What was put together here is JSON.
    api.to_pretty_json().map(|document| document + "\n").unwrap_or_default()
}

/// The market
///
/// What is mirrored, and how far. It has no tag, since it tells how old the rest is.
#[utoipa::path(
    get, path = "/v1/market", operation_id = "market",
    responses((status = 200, description = "The market.", body = One<view::Market>))
)]
async fn market(
    Asked(Nothing {}): Asked<Nothing>,
    State(market): State<Arc<Market>>,
) -> Result<impl IntoResponse, Problem> {
    let mut reading = market.read().await?;
    let (reorgs, deepest_reorg) = store::market::reorgs(reading.conn()).await?;
    let (deployment, token) = (market.deployment(), market.token());
    let item = view::Market {
        chain_id: deployment.chain_id,
        contracts: view::Contracts {
            payments: view::Address(deployment.payments),
            staking: view::Address(deployment.staking),
            registry: view::Address(deployment.registry),
            leases: view::Address(deployment.leases),
            sla: view::Address(deployment.sla),
            auction: view::Address(deployment.auction),
            apps: view::Address(deployment.apps),
        },
        token: view::Token {
            address: view::Address(deployment.token),
            symbol: token.symbol.clone(),
            decimals: token.decimals,
        },
        age: now().saturating_sub(reading.cursor.time),
        reorgs,
        deepest_reorg,
        version: env!("CARGO_PKG_VERSION"),
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(One { at: (&reading.cursor).into(), item })))
}

/// How a state is written in the database.
fn name_of(state: impl serde::Serialize) -> String {
    let name = serde_json::to_value(state).ok();
    name.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;

    /// `UPDATE_EXPECT=1` writes the document anew.
    #[test]
    fn the_document_is_what_the_code_is() {
        let (_, api) = routes();
        expect_file!["../../../docs/market-api.json"].assert_eq(&description(&api));
    }

    /// What is not described is what is not of the API: who runs a market asks for it.
    #[test]
    fn every_route_is_described() {
        let apart = ["/v1/openapi.json", "/healthz", "/readyz", "/metrics"];
        let routes = include_str!("serve.rs").split(".route(").skip(1);
        let routes: Vec<&str> = routes.filter_map(|route| route.split('"').nth(1)).collect();
        assert_eq!(routes, apart);
        let api = include_str!("api.rs").split("#[cfg(test)]").next();
        assert!(api.is_some_and(|api| !api.contains(".route(")), "a route without a description");
    }
}
