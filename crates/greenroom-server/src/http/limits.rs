//! Shows and changes the limits.

use actix_web::web::Data;
use greenroom::{LimitsChange, LimitsReport};

use super::app::Api;
use super::error::ApiError;
use super::input::Body;
use super::operation::Json;

/// Maximum number of entries per change, and in total: entries are kept until the service stops.
const MAX_ENTRIES: usize = 1000;
const MAX_ENTRIES_TOTAL: usize = 10_000;

/// `GET /v1/limits`
pub async fn show(api: Data<Api>) -> Json<LimitsReport> {
    Json(api.greenroom.limits().await)
}

/// `PUT /v1/limits`: merged into the current limits; null removes an entry.
pub async fn change(
    api: Data<Api>,
    change: Body<LimitsChange>,
) -> Result<Json<LimitsReport>, ApiError> {
    let change = change.0;
    let current = api.greenroom.limits().await;
    for (field, entries) in [("providers", &change.providers), ("models", &change.models)] {
        if entries.len() > MAX_ENTRIES {
            return Err(ApiError::invalid(format!(
                "{field}: more than {MAX_ENTRIES} entries"
            )));
        }
        let existing = match field {
            "providers" => &current.providers,
            _ => &current.models,
        };
        let new = entries
            .iter()
            .filter(|(name, limit)| limit.is_some() && !existing.contains_key(*name));
        if existing.len() + new.count() > MAX_ENTRIES_TOTAL {
            return Err(ApiError::invalid(format!(
                "{field}: more than {MAX_ENTRIES_TOTAL} entries in all; remove some with null"
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
