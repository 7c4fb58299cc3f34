//! Slots: shown, and changed while running.

use actix_web::web::Data;
use greenroom::{LimitsChange, LimitsReport};

use super::app::Api;
use super::call::Json;
use super::error::ApiError;
use super::input::Body;

/// Entries of one change, and in all: what is kept for good must not grow by calls without bound.
const MOST_ENTRIES: usize = 1000;
const MOST_KEPT: usize = 10_000;

/// `GET /v1/limits`
pub async fn show(api: Data<Api>) -> Json<LimitsReport> {
    Json(api.greenroom.limits().await)
}

/// `PUT /v1/limits`: merged into what holds; null removes an entry.
pub async fn change(
    api: Data<Api>,
    change: Body<LimitsChange>,
) -> Result<Json<LimitsReport>, ApiError> {
    let change = change.0;
    let held = api.greenroom.limits().await;
    for (field, entries) in [("providers", &change.providers), ("models", &change.models)] {
        if entries.len() > MOST_ENTRIES {
            return Err(ApiError::invalid(format!(
                "{field}: more than {MOST_ENTRIES} entries"
            )));
        }
        let kept = match field {
            "providers" => &held.providers,
            _ => &held.models,
        };
        let new = entries
            .iter()
            .filter(|(name, limit)| limit.is_some() && !kept.contains_key(*name));
        if kept.len() + new.count() > MOST_KEPT {
            return Err(ApiError::invalid(format!(
                "{field}: more than {MOST_KEPT} entries in all; remove some with null"
            )));
        }
        if let Some(name) = entries
            .keys()
            .find(|name| name.trim().is_empty() || name.len() > 256)
        {
            let shown = greenroom::domain::task::cut(name, 60);
            return Err(ApiError::invalid(format!(
                "{field}: {shown:?} is no name of 1 to 256 characters"
            )));
        }
    }
    Ok(Json(api.greenroom.set_limits(change).await?))
}
