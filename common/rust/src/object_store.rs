// SPDX-License-Identifier: Apache-2.0
//! The C interface of `include/ballast_object_store.h`: the crate `object_store`, waited for.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::signer::{Method, Signer};
use object_store::{
    ClientOptions, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode,
    RetryConfig,
};
use url::Url;

use crate::abi::{guarded, Failure, Text, TextBuffer};
use crate::runtime::{runtime, with_causes};

const CONNECT: Duration = Duration::from_secs(5);
/// One request, of up to some MiB.
const REQUEST: Duration = Duration::from_secs(60);
/// Few: callers tell their own clients to try again.
const RETRIES: usize = 4;
/// One call, with all of its requests and the fetching of credentials. Below the 30 s in which clients and leases end.
const CALL: Duration = Duration::from_secs(20);
/// Joining the parts of an upload, where some stores copy them, and copying an object.
const JOIN: Duration = Duration::from_secs(180);

/// The discriminants are those of the header.
#[repr(i32)]
enum Code {
    Invalid = 1,
    NotFound = 2,
    Exists = 3,
    Changed = 5,
    Denied = 6,
    Unavailable = 7,
}

fn failure(code: Code, message: impl Into<String>) -> Failure {
    Failure { code: code as i32, message: message.into() }
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Failure {
        use object_store::Error::*;
        let code = match &error {
            NotFound { .. } => Code::NotFound,
            AlreadyExists { .. } => Code::Exists,
            Precondition { .. } | NotModified { .. } => Code::Changed,
            PermissionDenied { .. } | Unauthenticated { .. } => Code::Denied,
            UnknownConfigurationKey { .. } | InvalidPath { .. } => Code::Invalid,
            _ => Code::Unavailable,
        };
        failure(code, with_causes(&error))
    }
}

pub struct Objects {
    store: Arc<dyn ObjectStore>,
    signer: Arc<dyn Signer>,
    prefix: String,
}

pub struct Upload {
    parts: Box<dyn MultipartUpload>,
    ended: bool,
}

#[repr(C)]
pub struct ObjectInfo {
    size: u64,
    etag: TextBuffer,
}

fn no_threads() -> Failure {
    failure(Code::Unavailable, "the system gives no threads for object stores")
}

/// Runs a call of the crate, and waits for it here.
fn wait<T, E>(call: impl Future<Output = Result<T, E>>) -> Result<T, Failure>
where
    Failure: From<E>,
{
    wait_for(CALL, call)
}

fn wait_for<T, E>(most: Duration, call: impl Future<Output = Result<T, E>>) -> Result<T, Failure>
where
    Failure: From<E>,
{
    let runtime = runtime().ok_or_else(no_threads)?;
    let answered = runtime.block_on(async { tokio::time::timeout(most, call).await });
    match answered {
        Ok(answer) => Ok(answer?),
        Err(_) => {
            let words = format!("no answer within {} s", most.as_secs());
            Err(failure(Code::Unavailable, words))
        }
    }
}

/// Settings of the environment, `PREFIX_NAME`, as the cloud's own tools have them: those that `options` do not
/// have, and none of a group of settings of which `options` have one.
fn from_environment<K>(
    prefix: &str,
    options: &[(K, String)],
    groups: &[fn(&K) -> bool],
) -> Vec<(K, String)>
where
    K: std::str::FromStr + PartialEq,
{
    let has = |group: &fn(&K) -> bool| options.iter().any(|(key, _)| group(key));
    let given: Vec<_> = groups.iter().filter(|group| has(group)).collect();
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(prefix))
        .filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse::<K>().ok()?, value)))
        .filter(|(key, _)| !options.iter().any(|(given, _)| given == key))
        .filter(|(key, _)| !given.iter().any(|group| group(key)))
        .collect()
}

impl Objects {
    fn open(url: &str, options: &[(&str, &str)]) -> Result<Objects, Failure> {
        runtime().ok_or_else(no_threads)?;
        let parsed = Url::parse(url)
            .map_err(|error| failure(Code::Invalid, format!("\"{url}\" is no URL: {error}")))?;
        let client = ClientOptions::new().with_connect_timeout(CONNECT).with_timeout(REQUEST);
        let retry = RetryConfig {
            max_retries: RETRIES,
            retry_timeout: CALL,
            ..Default::default()
        };
        // The client's options go first: names like "allow_http" change one of them.
        macro_rules! built {
            ($builder:ty, $key:ty, $prefix:expr, $($group:pat),+) => {{
                let mut given = Vec::new();
                for (name, value) in options {
                    given.push((name.parse::<$key>()?, (*value).to_owned()));
                }
                let found = from_environment($prefix, &given, &[$(|key| matches!(key, $group)),+]);
                let mut builder = <$builder>::new()
                    .with_client_options(client)
                    .with_url(url)
                    .with_retry(retry);
                for (key, value) in found.into_iter().chain(given) {
                    builder = builder.with_config(key, value);
                }
                let built = builder.build().map_err(|error| {
                    failure(Code::Invalid, Failure::from(error).message)
                })?;
                let built = Arc::new(built);
                (built.clone() as Arc<dyn ObjectStore>, built as Arc<dyn Signer>)
            }};
        }
        let (store, signer) = match parsed.scheme() {
            "s3" | "s3a" => built!(
                AmazonS3Builder,
                AmazonS3ConfigKey,
                "AWS_",
                AmazonS3ConfigKey::AccessKeyId
                    | AmazonS3ConfigKey::SecretAccessKey
                    | AmazonS3ConfigKey::Token,
                AmazonS3ConfigKey::Endpoint | AmazonS3ConfigKey::S3Endpoint
            ),
            "gs" => built!(
                GoogleCloudStorageBuilder,
                GoogleConfigKey,
                "GOOGLE_",
                GoogleConfigKey::ServiceAccount
                    | GoogleConfigKey::ServiceAccountKey
                    | GoogleConfigKey::ApplicationCredentials
            ),
            "az" | "azure" | "abfs" | "abfss" | "adl" => built!(
                MicrosoftAzureBuilder,
                AzureConfigKey,
                "AZURE_",
                AzureConfigKey::AccessKey
                    | AzureConfigKey::SasKey
                    | AzureConfigKey::Token
                    | AzureConfigKey::ClientId
                    | AzureConfigKey::ClientSecret
                    | AzureConfigKey::AuthorityId
                    | AzureConfigKey::FederatedTokenFile
            ),
            other => {
                let words = format!("\"{other}://\" is no store; take s3://, gs:// or az://");
                return Err(failure(Code::Invalid, words));
            }
        };
        let prefix = Path::from_url_path(parsed.path().trim_matches('/')).map_err(|error| {
            failure(Code::Invalid, format!("the path of \"{url}\" cannot be a prefix: {error}"))
        })?;
        Ok(Objects { store, signer, prefix: prefix.as_ref().to_owned() })
    }

    fn path(&self, name: &str) -> Result<Path, Failure> {
        let whole =
            if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) };
        Path::parse(whole).map_err(|error| failure(Code::Invalid, error.to_string()))
    }

    fn put(&self, name: &str, bytes: &[u8], only_new: bool) -> Result<(), Failure> {
        let mode = if only_new { PutMode::Create } else { PutMode::Overwrite };
        let path = self.path(name)?;
        wait(self.store.put_opts(&path, bytes.to_vec().into(), mode.into()))?;
        Ok(())
    }

    fn head(&self, name: &str) -> Result<(u64, String), Failure> {
        let found = wait(self.store.head(&self.path(name)?))?;
        Ok((found.size, found.e_tag.unwrap_or_default()))
    }

    fn get(&self, name: &str, etag: &str, offset: u64, size: u64) -> Result<Vec<u8>, Failure> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(offset..offset + size)),
            if_match: (!etag.is_empty()).then(|| etag.to_owned()),
            ..Default::default()
        };
        let path = self.path(name)?;
        let bytes = wait(async { self.store.get_opts(&path, options).await?.bytes().await })?;
        if bytes.len() as u64 != size {
            let words = format!("{} bytes came instead of {size}", bytes.len());
            return Err(failure(Code::Unavailable, words));
        }
        Ok(bytes.into())
    }

    /// (rest of the name, size), by name.
    fn list(&self, name: &str) -> Result<Vec<(String, u64)>, Failure> {
        let path = self.path(name)?;
        let found: Vec<_> = wait(self.store.list(Some(&path)).try_collect())?;
        let skipped = path.as_ref().len() + 1;
        // A "folder" that somebody has made is an object whose name ends with the slash, and lists without it.
        let mut named: Vec<_> = found
            .iter()
            .filter_map(|object| {
                Some((object.location.as_ref().get(skipped..)?.to_owned(), object.size))
            })
            .collect();
        named.sort();
        Ok(named)
    }

    fn delete_prefix(&self, name: &str) -> Result<u64, Failure> {
        let path = self.path(name)?;
        let deleted = wait(async {
            let below = self.store.list(Some(&path)).map_ok(|object| object.location).boxed();
            let mut gone = self.store.delete_stream(below);
            let mut count = 0;
            while let Some(result) = gone.next().await {
                match result {
                    Ok(_) => count += 1,
                    Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            match self.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(count),
                Err(error) => Err(error),
            }
        })?;
        Ok(deleted)
    }

    fn copy(&self, from: &str, to: &str) -> Result<(), Failure> {
        wait_for(JOIN, self.store.copy(&self.path(from)?, &self.path(to)?))
    }

    /// A URL by which who has no key can get, or put, the object.
    fn link(&self, name: &str, put: bool, valid: Duration) -> Result<String, Failure> {
        let method = if put { Method::PUT } else { Method::GET };
        Ok(wait(self.signer.signed_url(method, &self.path(name)?, valid))?.into())
    }

    fn upload(&self, name: &str) -> Result<Upload, Failure> {
        let parts = wait(self.store.put_multipart(&self.path(name)?))?;
        Ok(Upload { parts, ended: false })
    }
}

impl Upload {
    fn part(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        wait(self.parts.put_part(bytes.to_vec().into()))?;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        wait_for(JOIN, self.parts.complete())?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.ended {
            // What cannot be dropped now is for the store's own rule on unfinished uploads.
            let _ = wait(self.parts.abort());
        }
    }
}

/// # Safety
/// See the header; the same holds for every function below.
#[no_mangle]
pub unsafe extern "C" fn ballast_objects_open(
    url: Text,
    options: *const Text,
    count: usize,
    out: *mut *mut Objects,
    error: *mut TextBuffer,
) -> i32 {
    guarded(out, error, || {
        let texts = if count == 0 { &[] } else { std::slice::from_raw_parts(options, 2 * count) };
        let mut pairs = Vec::with_capacity(count);
        for pair in texts.chunks(2) {
            pairs.push((pair[0].str()?, pair[1].str()?));
        }
        Objects::open(url.str()?, &pairs).map(|store| Box::into_raw(Box::new(store)))
    })
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_objects_free(store: *mut Objects) {
    if !store.is_null() {
        drop(Box::from_raw(store));
    }
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_objects_put(
    store: *const Objects,
    path: Text,
    bytes: Text,
    only_new: bool,
    out: *mut bool,
    error: *mut TextBuffer,
) -> i32 {
    guarded(out, error, || (*store).put(path.str()?, bytes.bytes(), only_new).map(|()| true))
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_objects_head(
    store: *const Objects,
    path: Text,
    out: *mut ObjectInfo,
    error: *mut TextBuffer,
) -> i32 {
    guarded(out, error, || {
        let (size, etag) = (*store).head(path.str()?)?;
        Ok(ObjectInfo { size, etag: TextBuffer::owned(etag) })
    })
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_objects_get(
    store: *const Objects,
    path: Text,
    etag: Text,
    offset: u64,
    size: u64,
    out: *mut TextBuffer,
    error: *mut TextBuffer,
) -> i32 {
    guarded(out, error, || {
        (*store).get(path.str()?, etag.str()?, offset, size).map(TextBuffer::owned)
    })
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_objects_list(
    store: *const Objects,
    path: Text,
    out: *mut TextBuffer,
    error: *mut TextBuffer,
) -> i32 {
    guarded(out, error, || {
        let lines: String = (*store)
            .list(path.str()?)?
            .iter()
            .map(|(name, size)| format!("{size}\t{name}\n"))
            .collect();
        Ok(TextBuffer::owned(lines))
    })
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_objects_delete_prefix(
    store: *const Objects,
    path: Text,
    out: *mut u64,
    error: *mut TextBuffer,
) -> i32 {
    guarded(out, error, || (*store).delete_prefix(path.str()?))
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_objects_copy(
    store: *const Objects,
    from: Text,
    to: Text,
    out: *mut bool,
    error: *mut TextBuffer,
) -> i32 {
    guarded(out, error, || (*store).copy(from.str()?, to.str()?).map(|()| true))
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_objects_link(
    store: *const Objects,
    path: Text,
    put: bool,
    seconds: u32,
    out: *mut TextBuffer,
    error: *mut TextBuffer,
) -> i32 {
    guarded(out, error, || {
        let valid = Duration::from_secs(seconds.into());
        (*store).link(path.str()?, put, valid).map(TextBuffer::owned)
    })
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_objects_upload_new(
    store: *const Objects,
    path: Text,
    out: *mut *mut Upload,
    error: *mut TextBuffer,
) -> i32 {
    guarded(out, error, || {
        (*store).upload(path.str()?).map(|upload| Box::into_raw(Box::new(upload)))
    })
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_objects_upload_part(
    upload: *mut Upload,
    bytes: Text,
    out: *mut bool,
    error: *mut TextBuffer,
) -> i32 {
    guarded(out, error, || (*upload).part(bytes.bytes()).map(|()| true))
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_objects_upload_finish(
    upload: *mut Upload,
    out: *mut bool,
    error: *mut TextBuffer,
) -> i32 {
    guarded(out, error, || (*upload).finish().map(|()| true))
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_objects_upload_free(upload: *mut Upload) {
    if !upload.is_null() {
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            drop(Box::from_raw(upload));
        }));
    }
}
