//! What happened.

use store::event;

use crate::{
    Problem,
    answer::{Answer, Now, Page},
    query::{Asked, queries},
    view::{At, Event},
};

queries! {
    /// Which events.
    Events by At {}
}

/// Events, the newest first
#[utoipa::path(
    get, path = "/v1/events", operation_id = "events", params(Events),
    responses((status = 200, description = "A page of events.", body = Page<Event>))
)]
pub(super) async fn list(
    Asked(query): Asked<Events>,
    mut now: Now,
) -> Result<Answer<Page<Event>>, Problem> {
    let before = query.cursor.map(|before| before.0);
    let rows = event::newest(now.conn(), before, query.limit.rows()).await?;
    Ok(now.page(rows, query.limit, |row| At(row.place()), Event::from))
}
