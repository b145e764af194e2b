//! Work that takes its time, off the threads that serve everybody else.

use crate::ApiError;

/// Does `work` on the blocking pool. A panic in it is an error of this request and of nobody else; `failed` says in that
/// case what could not be done.
pub(crate) async fn run<T: Send + 'static>(
    request_id: &str,
    failed: &'static str,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| {
        tracing::error!(%panic, failed, "a bug");
        Err(ApiError::internal(request_id, failed))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_of_its_request() {
        let error = run::<()>("id-1", "It could not be done", || panic!("secret")).await.unwrap_err();
        assert_eq!(error.status, 500);
        assert_eq!(error.message, "It could not be done (request id id-1)");
        assert_eq!(run("id-2", "", || Ok(2)).await, Ok(2), "the pool goes on");
    }
}
