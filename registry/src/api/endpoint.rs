//! Paths and methods of the distribution API, as data. Pure.

use super::error::{ApiError, Code};
use crate::{access::Operation, store::UploadId};
use http::Method;
use neap_sdk::{
    Digest,
    artifact::{Repository, TagOrDigest},
};

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    Base,
    Catalog,
    Tags(Repository),
    Referrers(Repository, Digest),
    Blob(Repository, Digest),
    Manifest(Repository, TagOrDigest),
    Uploads(Repository),
    Upload(Repository, UploadId),
}

/// What a method does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Ping,
    List,
    Get,
    Post,
    Patch,
    Put,
    Delete,
    /// GET of an upload: reading for whoever writes.
    Status,
    /// DELETE of an upload.
    Cancel,
}

impl Action {
    pub(super) fn operation(self) -> Operation {
        match self {
            Self::Ping => Operation::Ping,
            Self::List => Operation::Catalog,
            Self::Get => Operation::Pull,
            Self::Post | Self::Patch | Self::Put | Self::Status | Self::Cancel => Operation::Push,
            Self::Delete => Operation::Delete,
        }
    }
}

impl Endpoint {
    /// Reads a request's path. The parts of a repository's name may be words of the API, so the end decides.
    pub(super) fn parse(path: &str) -> Result<Self, ApiError> {
        let path = decode(path)?;
        let rest = path.strip_prefix("/v2").unwrap_or(&path).trim_start_matches('/');
        match rest {
            "" => return Ok(Self::Base),
            "_catalog" => return Ok(Self::Catalog),
            _ => {}
        }
        let unknown =
            || ApiError::new(Code::Unsupported, "there is no such path in the distribution API").status(404);
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Ok(Self::Tags(repository(name)?));
        }
        if let Some(name) =
            rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads"))
        {
            return Ok(Self::Uploads(repository(name)?));
        }
        let (front, last) = rest.rsplit_once('/').ok_or_else(unknown)?;
        if let Some(name) = front.strip_suffix("/blobs/uploads") {
            return Ok(Self::Upload(repository(name)?, last.parse().map_err(ApiError::from)?));
        }
        let (name, kind) = front.rsplit_once('/').ok_or_else(unknown)?;
        match kind {
            "blobs" => Ok(Self::Blob(repository(name)?, digest(last)?)),
            "referrers" => Ok(Self::Referrers(repository(name)?, digest(last)?)),
            "manifests" => {
                let code = if last.contains(':') { Code::DigestInvalid } else { Code::TagInvalid };
                let target = last.parse().map_err(|error| ApiError::caused(code, &error))?;
                Ok(Self::Manifest(repository(name)?, target))
            }
            _ => Err(unknown()),
        }
    }

    /// What `method` does here.
    pub(super) fn action(&self, method: &Method) -> Result<Action, ApiError> {
        let read = method == Method::GET || method == Method::HEAD;
        let action = match self {
            Self::Base if read => Action::Ping,
            Self::Catalog if read => Action::List,
            Self::Tags(_) | Self::Referrers(..) | Self::Blob(..) | Self::Manifest(..) if read => Action::Get,
            Self::Blob(..) | Self::Manifest(..) if method == Method::DELETE => Action::Delete,
            Self::Manifest(..) | Self::Upload(..) if method == Method::PUT => Action::Put,
            Self::Uploads(_) if method == Method::POST => Action::Post,
            Self::Upload(..) if method == Method::PATCH => Action::Patch,
            Self::Upload(..) if method == Method::DELETE => Action::Cancel,
            Self::Upload(..) if read => Action::Status,
            _ => {
                let text = format!("{method} is not supported on this path");
                return Err(ApiError::new(Code::Unsupported, text));
            }
        };
        Ok(action)
    }

    pub(super) fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Base | Self::Catalog => None,
            Self::Tags(repository)
            | Self::Referrers(repository, _)
            | Self::Blob(repository, _)
            | Self::Manifest(repository, _)
            | Self::Uploads(repository)
            | Self::Upload(repository, _) => Some(repository),
        }
    }
}

fn repository(name: &str) -> Result<Repository, ApiError> {
    name.parse().map_err(|error| ApiError::caused(Code::NameInvalid, &error))
}

fn digest(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|error| ApiError::caused(Code::DigestInvalid, &error))
}

/// Percent-decodes a path; some clients write `sha256%3A…`.
fn decode(path: &str) -> Result<String, ApiError> {
    let malformed = || ApiError::new(Code::NameInvalid, "the path is not valid percent-encoded UTF-8");
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        let hex =
            |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(malformed);
        let decoded = if byte == b'%' { hex(rest.next())? * 16 + hex(rest.next())? } else { u32::from(byte) };
        bytes.push(u8::try_from(decoded).map_err(|_| malformed())?);
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_path_decides_what_it_names() {
        let name = |text: &str| text.parse::<Repository>().expect("a repository");
        let d = Digest::of(b"x");
        let id = "0123456789abcdef0123456789abcdef";
        for (path, expected) in [
            ("/v2".to_owned(), Endpoint::Base),
            ("/v2/".to_owned(), Endpoint::Base),
            ("/v2/_catalog".to_owned(), Endpoint::Catalog),
            (format!("/v2/a/blobs/{d}"), Endpoint::Blob(name("a"), d)),
            (format!("/v2/a/blobs/sha256%3a{}", d.hex()), Endpoint::Blob(name("a"), d)),
            (
                format!("/v2/blobs/manifests/tags/referrers/{d}"),
                Endpoint::Referrers(name("blobs/manifests/tags"), d),
            ),
            ("/v2/a/b/tags/list".to_owned(), Endpoint::Tags(name("a/b"))),
            (
                "/v2/a/manifests/list".to_owned(),
                Endpoint::Manifest(name("a"), "list".parse().expect("a tag")),
            ),
            ("/v2/a/blobs/uploads/".to_owned(), Endpoint::Uploads(name("a"))),
            ("/v2/a/blobs/uploads".to_owned(), Endpoint::Uploads(name("a"))),
            (format!("/v2/a/blobs/uploads/{id}"), Endpoint::Upload(name("a"), id.parse().expect("an id"))),
        ] {
            assert_eq!(Endpoint::parse(&path).ok(), Some(expected), "{path}");
        }
        let escapes = [
            "/v2/../blobs/uploads/",
            "/v2/a%2f..%2f..%2fetc/tags/list",
            "/v2/a/blobs/uploads/..",
            "/v2/a",
            "/v2/%zz",
        ];
        for bad in
            escapes.into_iter().chain(["/v2/A/tags/list", "/v2/a/manifests/.x", "/v2/a/blobs/sha256:12"])
        {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
