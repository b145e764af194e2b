//! Images and videos of a request: from the URLs in its messages to patches. Bytes come with the request, were uploaded, or are
//! fetched from hosts that the operator allows (`remote_media.rs`).

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::available_parallelism;

use bytes::Bytes;
use data_url::DataUrl;
use kimi_chat::{
    Conversation, MediaBudget, MediaError, MediaPart, PreparedMedia, prepare_image, prepare_video,
};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::auth::Caller;
use crate::prepare::Desk;
use crate::remote_media::{Fetched, RemoteMedia, Wanted};
use crate::{ApiError, App, Limits, blocking};

/// Where uploads are.
const UPLOADED: &str = "ms://";

/// Bytes of uploads that one request may refer to; each reference counts.
const UPLOADED_BYTES: u64 = 256 * 1000 * 1000;

/// Requests whose media are decoded at once, at most: each may take half a gigabyte for a moment.
const MAX_DECODERS: usize = 4;

/// The places of those whose media are being decoded.
pub(crate) fn decoders() -> Arc<Semaphore> {
    let cores = available_parallelism().map_or(1, usize::from);
    Arc::new(Semaphore::new(cores.min(MAX_DECODERS)))
}

/// Decodes the media of a conversation, in the order of the prompt. A client that leaves ends the work.
pub(crate) async fn prepare(
    conversation: Box<Conversation>,
    desk: Desk<'_>,
) -> Result<(Box<Conversation>, Vec<PreparedMedia>), ApiError> {
    if conversation.media().next().is_none() {
        return Ok((conversation, Vec::new()));
    }
    let fetched = match desk.app.fetcher() {
        Some(fetcher) => fetcher.fetch(remote(&conversation)).await?,
        None => Fetched::default(),
    };
    let Limits { decoder_wait, decode_within, .. } = desk.app.config().limits;
    let turn = timeout(decoder_wait, Arc::clone(desk.app.decoders()).acquire_owned()).await;
    let turn = turn.map_err(|_elapsed| {
        ApiError::overloaded(
            "The server is currently overloaded with decoding media; retry later",
            decoder_wait,
        )
    })?;
    let stop = StopOnDrop::default();
    let limits = desk.service.engine.limits();
    let budget = MediaBudget::new(limits.max_prompt_tokens, Arc::clone(&stop.0));
    let (app, caller) = (desk.app.clone(), desk.caller);
    let work = move || {
        let _turn = turn;
        let (upload_bytes, context) = (UPLOADED_BYTES, limits.max_context);
        let mut reader = Reader { app, caller, fetched, budget, upload_bytes, context };
        let media = conversation.media().map(|part| reader.prepare(part)).collect::<Result<_, _>>()?;
        Ok((conversation, media))
    };
    let work = blocking::run(desk.request_id, "The images or videos could not be decoded", work);
    timeout(decode_within, work)
        .await
        .unwrap_or_else(|_elapsed| Err(ApiError::from_media(&MediaError::Stopped, limits.max_context)))
}

/// Says "stop" when dropped: whoever waited got what it waited for, or is gone.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads and decodes media, one after another.
struct Reader {
    app: App,
    caller: Caller,
    fetched: Fetched,
    budget: MediaBudget,
    /// Of uploads, that may still be read.
    upload_bytes: u64,
    /// Tokens of the context, for errors.
    context: usize,
}

impl Reader {
    fn prepare(&mut self, part: MediaPart<'_>) -> Result<PreparedMedia, ApiError> {
        let prepared = match part {
            MediaPart::Image(image) => {
                let bytes = self.bytes("image", &image.url)?;
                prepare_image(&bytes, &mut self.budget).map(PreparedMedia::Image)
            }
            MediaPart::Video(video) => {
                let bytes = self.bytes("video", &video.url)?;
                prepare_video(&bytes, &mut self.budget)
            }
        };
        prepared.map_err(|error| ApiError::from_media(&error, self.context))
    }

    /// What is behind a URL that [`check_url`] let pass.
    fn bytes(&mut self, kind: &str, url: &str) -> Result<Bytes, ApiError> {
        if let Some(id) = url.strip_prefix(UPLOADED) {
            return self.upload(kind, id).map(Bytes::from);
        }
        if let Some(bytes) = self.fetched.get(url) {
            return Ok(bytes);
        }
        let refusal = |what| {
            ApiError::invalid(format!("Invalid request: failed to decode {kind}: the data URL {what}"))
        };
        let url = DataUrl::process(url).map_err(|_| refusal("has no comma before its data"))?;
        let (bytes, _fragment) = url.decode_to_vec().map_err(|_| refusal("is not valid base64"))?;
        Ok(bytes.into())
    }

    fn upload(&mut self, kind: &str, id: &str) -> Result<Vec<u8>, ApiError> {
        let refusal =
            |what: String| ApiError::invalid(format!("Invalid request: unsupported {kind} url: {what}"));
        let files = self.app.files();
        let (file, _, length) = files
            .open(self.caller, id)
            .map_err(|_| refusal(format!("not found the file {id:?} or permission denied")))?;
        self.upload_bytes = self.upload_bytes.checked_sub(length).ok_or_else(|| {
            refusal(format!("the files of one request may have at most {UPLOADED_BYTES} bytes together"))
        })?;
        let mut bytes = Vec::with_capacity(length as usize);
        file.and_then(|file| file.take(length).read_to_end(&mut bytes)).map_err(|error| {
            tracing::error!(%error, "an uploaded file cannot be read");
            refusal("the file is gone; upload it again".to_owned())
        })?;
        Ok(bytes)
    }
}

/// Which media a conversation may have.
#[derive(Clone, Copy, Debug, Default)]
pub struct MediaRules<'a> {
    /// Whether the model sees images and videos.
    pub vision: bool,
    /// What is fetched from other hosts; `None`: nothing.
    pub remote: Option<&'a RemoteMedia>,
}

impl MediaRules<'_> {
    /// Whether a medium may come from such a URL. `kind` is `image` or `video`.
    pub(crate) fn check(self, kind: &str, url: &str) -> Result<(), ApiError> {
        check_url(kind, url, self.remote)?;
        if self.vision {
            return Ok(());
        }
        Err(ApiError::invalid(format!(
            "Invalid request: {kind} input is not supported by this model: it has no vision tower"
        )))
    }
}

/// The media of a conversation that other hosts have.
fn remote(conversation: &Conversation) -> Vec<Wanted> {
    let wanted = |(kind, url): (_, &str)| is_remote(url).then(|| Wanted { kind, url: url.to_owned() });
    let of = |part| match part {
        MediaPart::Image(image) => ("image", image.url.as_str()),
        MediaPart::Video(video) => ("video", video.url.as_str()),
    };
    conversation.media().map(of).filter_map(wanted).collect()
}

fn is_remote(url: &str) -> bool {
    has_scheme(url, "http:") || has_scheme(url, "https:")
}

fn has_scheme(url: &str, scheme: &str) -> bool {
    url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

fn check_url(kind: &str, url: &str, remote: Option<&RemoteMedia>) -> Result<(), ApiError> {
    if has_scheme(url, "data:") || url.starts_with(UPLOADED) {
        return Ok(());
    }
    let what = match (is_remote(url), remote) {
        (true, Some(remote)) => return remote.check_url(kind, url),
        (true, None) => format!("this server does not fetch remote {kind}s; "),
        (false, _) => String::new(),
    };
    Err(ApiError::invalid(format!(
        "Invalid request: unsupported {kind} url: {what}send the {kind} as data:{kind}/…;base64,… or upload it to /v1/files \
         and send ms://FILE_ID"
    )))
}
