// SPDX-License-Identifier: Apache-2.0
//! The C interface of `include/ballast_http.h`: the crate `reqwest`, waited for.
//!
//! URLs are secrets: errors name operation, host and status, and nothing else of them.

use std::ffi::c_void;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{select, Either};
use futures_util::stream::unfold;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use reqwest::{Body, Client, Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::Instant;
use url::{Host, Url};

use crate::abi::{guarded, Failure, Text, TextBuffer};
use crate::runtime::{runtime, with_causes};

/// How often the callback is asked whether to go on while nothing comes.
const TICK: Duration = Duration::from_millis(200);
/// How often `idle` the answer to a PUT may take once the last byte was handed on.
const ANSWER_IDLES: u32 = 3;
/// Bytes of one piece that is sent; at least as many come in each `idle` that is waited for a body.
const PIECE: usize = 256 << 10;
/// Shorter than stores keep connections that nobody uses.
const POOL_IDLE: Duration = Duration::from_secs(5);

/// The discriminants are those of the header.
#[repr(i32)]
enum Code {
    Invalid = 1,
    Refused = 2,
    Unreachable = 3,
    Stopped = 5,
    Broken = 6,
    Slow = 7,
}

fn failure(code: Code, message: impl Into<String>) -> Failure {
    Failure { code: code as i32, message: message.into() }
}

fn no_threads() -> Failure {
    failure(Code::Unreachable, "the system gives no threads for HTTP")
}

pub struct Http {
    client: Client,
    idle: Duration,
    allow_plain: bool,
}

/// A request under way: what its errors begin with.
struct Request {
    what: &'static str,
    url: Url,
}

impl Request {
    fn words(&self) -> String {
        let host = self.url.host_str().unwrap_or("?");
        match self.url.port() {
            Some(port) => format!("{} of {host}:{port}", self.what),
            None => format!("{} of {host}", self.what),
        }
    }

    fn failed(&self, code: Code, why: &str) -> Failure {
        failure(code, format!("{} {why}", self.words()))
    }

    fn error(&self, error: reqwest::Error) -> Failure {
        let code = if error.is_builder() {
            Code::Invalid
        } else if error.is_connect() || error.is_timeout() {
            Code::Unreachable
        } else {
            Code::Broken
        };
        let words = with_causes(&error.without_url());
        self.failed(code, &format!("failed: {words}"))
    }

    fn answered(&self, response: &Response) -> Failure {
        self.failed(Code::Refused, &format!("was answered with {}", response.status().as_u16()))
    }
}

/// Waits for `call` while `goes_on`, at most `idle`.
async fn patiently<T>(
    request: &Request,
    idle: Duration,
    goes_on: &mut dyn FnMut() -> bool,
    call: impl Future<Output = T>,
) -> Result<T, Failure> {
    let mut call = pin!(call);
    let until = Instant::now() + idle;
    loop {
        if let Ok(done) = tokio::time::timeout(TICK, &mut call).await {
            return Ok(done);
        }
        if !goes_on() {
            return Err(request.failed(Code::Stopped, "was stopped"));
        }
        if Instant::now() >= until {
            let words = format!("stood still for {} s", idle.as_secs_f32());
            return Err(request.failed(Code::Unreachable, &words));
        }
    }
}

/// Whether other machines cannot reach this host (see common/base/loopback.h).
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Whether the answer begins at this byte.
fn begins_at(response: &Response, offset: u64) -> bool {
    if response.status() == StatusCode::OK {
        return offset == 0;
    }
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

impl Http {
    fn open(connect: Duration, idle: Duration, allow_plain: bool) -> Result<Http, Failure> {
        runtime().ok_or_else(no_threads)?;
        let mut builder = Client::builder()
            .connect_timeout(connect)
            .pool_idle_timeout(POOL_IDLE)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .https_only(!allow_plain)
            .user_agent("ballast");
        if allow_plain {
            // A proxy of the environment would see everything in clear.
            builder = builder.no_proxy();
        }
        let client =
            builder.build().map_err(|error| failure(Code::Invalid, with_causes(&error)))?;
        Ok(Http { client, idle, allow_plain })
    }

    fn request(&self, what: &'static str, url: &str) -> Result<Request, Failure> {
        let url = Url::parse(url).map_err(|_| failure(Code::Invalid, "the link is no URL"))?;
        let request = Request { what, url };
        match request.url.scheme() {
            "https" => Ok(request),
            "http" if self.allow_plain && is_loopback(&request.url) => Ok(request),
            "http" if self.allow_plain => {
                Err(request.failed(Code::Invalid, "is neither by https nor to this machine"))
            }
            _ => Err(request.failed(Code::Invalid, "is not by https")),
        }
    }

    /// Runs a call, and waits for it here: callbacks run in the calling thread.
    fn wait<T>(&self, call: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        runtime().ok_or_else(no_threads)?.block_on(call)
    }

    async fn get(
        &self,
        request: &Request,
        offset: u64,
        size: u64,
        sink: &mut dyn FnMut(&[u8]) -> bool,
        status: &mut u32,
    ) -> Result<(), Failure> {
        let end = offset.checked_add(size).filter(|end| *end <= i64::MAX as u64);
        let (Some(end), true) = (end, size > 0) else {
            return Err(request.failed(Code::Invalid, "asks for bytes that cannot be"));
        };
        let range = format!("bytes={offset}-{}", end - 1);
        let sent = self.client.get(request.url.clone()).header(RANGE, range).send();
        let answer = patiently(request, self.idle, &mut || sink(&[]), sent).await?;
        let mut response = answer.map_err(|error| request.error(error))?;
        *status = response.status().as_u16().into();
        if !response.status().is_success() {
            return Err(request.answered(&response));
        }
        if !begins_at(&response, offset) {
            return Err(request.failed(Code::Broken, "was answered with other bytes"));
        }
        let mut left = size;
        // Only waiting counts: the sink may be slower than the store.
        let mut waited = Duration::ZERO;
        let mut came = 0;
        while left > 0 {
            let begin = Instant::now();
            let next = patiently(request, self.idle, &mut || sink(&[]), response.chunk()).await?;
            waited += begin.elapsed();
            let Some(bytes) = next.map_err(|error| request.error(error))? else {
                let words = format!("ended {left} bytes early");
                return Err(request.failed(Code::Broken, &words));
            };
            let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= taken as u64;
            if taken > 0 && !sink(&bytes[..taken]) {
                return Err(request.failed(Code::Stopped, "was stopped"));
            }
            came += taken;
            if waited >= self.idle {
                if came < PIECE && left > 0 {
                    let words = format!("brought {came} bytes in {} s", waited.as_secs_f32());
                    return Err(request.failed(Code::Slow, &words));
                }
                (waited, came) = (Duration::ZERO, 0);
            }
        }
        Ok(())
    }

    async fn put(
        &self,
        request: &Request,
        headers: HeaderMap,
        size: u64,
        source: &mut dyn FnMut(&mut [u8]) -> Option<usize>,
        status: &mut u32,
    ) -> Result<(), Failure> {
        let stopped = || request.failed(Code::Stopped, "was stopped");
        let (sender, receiver) = mpsc::channel::<Result<Vec<u8>, std::io::Error>>(2);
        let body = Body::wrap_stream(unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|piece| (piece, receiver))
        }));
        let put = self.client.put(request.url.clone()).headers(headers);
        let mut answer = pin!(put.header(CONTENT_LENGTH, size).body(body).send());
        let mut early = None;
        let mut left = size;
        while left > 0 && early.is_none() {
            let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
            let read = source(&mut piece).filter(|read| *read > 0).ok_or_else(stopped)?;
            piece.truncate(read);
            left -= read as u64;
            let given = pin!(sender.send(Ok(piece)));
            let either = select(answer.as_mut(), given);
            let goes_on = &mut || source(&mut []).is_some();
            match patiently(request, self.idle, goes_on, either).await? {
                Either::Left((answered, _)) => early = Some(answered),
                Either::Right((Ok(()), _)) => {}
                // Nobody reads on: the answer says why.
                Either::Right((Err(_), _)) => break,
            }
        }
        drop(sender);
        let answered = match early {
            Some(answered) => answered,
            // What the system holds of the bytes has to be sent first, and stored.
            None => {
                let idle = ANSWER_IDLES * self.idle;
                patiently(request, idle, &mut || source(&mut []).is_some(), answer).await?
            }
        };
        let response = answered.map_err(|error| request.error(error))?;
        *status = response.status().as_u16().into();
        if !response.status().is_success() {
            return Err(request.answered(&response));
        }
        if left > 0 {
            return Err(request.failed(Code::Broken, "was answered before all bytes were sent"));
        }
        Ok(())
    }
}

type Sink = extern "C" fn(*mut c_void, *const u8, usize) -> bool;
type Source = extern "C" fn(*mut c_void, *mut u8, usize) -> i64;

/// # Safety
/// See the header; the same holds for every function below.
#[no_mangle]
pub unsafe extern "C" fn ballast_http_open(
    connect_ms: u32,
    idle_ms: u32,
    allow_plain: bool,
    out: *mut *mut Http,
    error: *mut TextBuffer,
) -> i32 {
    guarded(out, error, || {
        let millis = |count: u32| Duration::from_millis(count.into());
        Http::open(millis(connect_ms), millis(idle_ms), allow_plain)
            .map(|http| Box::into_raw(Box::new(http)))
    })
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_http_free(http: *mut Http) {
    if !http.is_null() {
        drop(Box::from_raw(http));
    }
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_http_get(
    http: *const Http,
    url: Text,
    offset: u64,
    size: u64,
    sink: Sink,
    context: *mut c_void,
    status: *mut u32,
    error: *mut TextBuffer,
) -> i32 {
    let mut found = 0;
    let mut done = false;
    let code = guarded(&mut done, error, || {
        let request = (*http).request("the GET", url.str()?)?;
        let mut give = |bytes: &[u8]| sink(context, bytes.as_ptr(), bytes.len());
        let got = (*http).get(&request, offset, size, &mut give, &mut found);
        (*http).wait(got).map(|()| true)
    });
    status.write(found);
    code
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_http_put(
    http: *const Http,
    url: Text,
    headers: *const Text,
    count: usize,
    size: u64,
    source: Source,
    context: *mut c_void,
    status: *mut u32,
    error: *mut TextBuffer,
) -> i32 {
    let mut found = 0;
    let mut done = false;
    let code = guarded(&mut done, error, || {
        let request = (*http).request("the PUT", url.str()?)?;
        let texts = if count == 0 { &[] } else { std::slice::from_raw_parts(headers, 2 * count) };
        let mut map = HeaderMap::new();
        for pair in texts.chunks(2) {
            let name = HeaderName::from_bytes(pair[0].bytes());
            let value = HeaderValue::from_bytes(pair[1].bytes());
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(request.failed(Code::Invalid, "has a header that is none"));
            };
            map.append(name, value);
        }
        let mut take = |room: &mut [u8]| {
            let read = source(context, room.as_mut_ptr(), room.len());
            usize::try_from(read).ok().filter(|read| *read <= room.len())
        };
        let put = (*http).put(&request, map, size, &mut take, &mut found);
        (*http).wait(put).map(|()| true)
    });
    status.write(found);
    code
}
