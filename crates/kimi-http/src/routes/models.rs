//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::Json;
use axum::extract::{Path, State};
use kimi_api::{Model, ModelList};

use crate::state::ReadyService;
use crate::{ApiError, App};

/// The one model that is loaded, under the name it is listed with.
pub(crate) async fn list_models(State(app): State<App>) -> Result<Json<ModelList>, ApiError> {
    let service = app.service()?;
    let name = service.model.names.first().cloned().unwrap_or_else(|| "kimi-k2.6".to_owned());
    Ok(Json(ModelList::new(vec![describe(&service, name)])))
}

/// The loaded model under any of its names.
pub(crate) async fn retrieve_model(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<Model>, ApiError> {
    let service = app.service()?;
    service.names.check(&name)?;
    Ok(Json(describe(&service, name)))
}

fn describe(service: &ReadyService, id: String) -> Model {
    let context = service.engine.limits().max_context;
    Model {
        id,
        object: Model::OBJECT,
        created: service.model.created,
        owned_by: service.model.owned_by.clone(),
        context_length: context,
        max_model_len: context,
        supports_image_in: service.model.vision,
        supports_video_in: service.model.vision,
        supports_reasoning: true,
    }
}
