//! What the answers of an S3 server mean. Pure, no I/O.

use reqwest::header::HeaderMap;

use crate::contract::Access;

use super::super::{
    StorageError,
    remote::{
        client::{Answer, Manners, element},
        errors::{Asked, Place},
    },
};

/// Tells the region that a bucket is in.
const REGION: &str = "x-amz-bucket-region";
/// Tells the region that a signature has to be for, where the header does not.
const EXPECTED_REGION: &str = "Region";

/// How S3 servers answer: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>.
pub(super) static MANNERS: Manners =
    Manners { server: "an S3 server", codes: CODES, code, headers: &[REGION], elements: &[EXPECTED_REGION] };

/// Codes of S3 errors that may be shown.
const CODES: &[&str] = &[
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "ExpiredTokenException",
    "IllegalLocationConstraintException",
    "InternalError",
    "InvalidAccessKeyId",
    "InvalidBucketName",
    "InvalidIdentityToken",
    "InvalidObjectState",
    "InvalidRange",
    "InvalidRequest",
    "InvalidToken",
    "NoSuchBucket",
    "NoSuchKey",
    "NotSignedUp",
    "PermanentRedirect",
    "PreconditionFailed",
    "RequestTimeTooSkewed",
    "RequestTimeout",
    "ServiceUnavailable",
    "SignatureDoesNotMatch",
    "SlowDown",
    "TemporaryRedirect",
    "TokenRefreshRequired",
];

fn code(_: &HeaderMap, body: &str) -> Option<String> {
    element(body, "Code").map(str::to_owned)
}

/// Whether the text can be the name of a region.
pub(super) fn is_region(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// What was asked, for messages.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    pub place: Place,
    /// The bucket's name.
    pub name: String,
    pub region: String,
    pub access: Access,
}

impl Bucket {
    /// The error as one that can be shown.
    pub(super) fn explain(&self, error: &(dyn std::error::Error + 'static), asked: Asked<'_>) -> StorageError {
        self.place.explain(error, |answer| self.answer(answer, asked))
    }

    fn answer(&self, answer: &Answer, asked: Asked<'_>) -> StorageError {
        let Answer { host, status, .. } = answer;
        let shown = answer.shown();
        match (status, answer.code) {
            (_, Some("NoSuchBucket")) => StorageError::NotFound(format!("there is no bucket {} at {host}", self.name)),
            (404 | 410, _) => match asked {
                Asked::File(path) => StorageError::Changed(format!("{path} is gone since it was listed")),
                Asked::Listing => {
                    StorageError::NotFound(format!("there is no bucket {} at {host}, or no S3 server", self.name))
                }
            },
            (304 | 412, _) => StorageError::Changed(match asked {
                Asked::File(path) => format!("{path} is no longer the file that was listed"),
                Asked::Listing => format!("the bucket {} changed while it was listed", self.name),
            }),
            (416, _) => StorageError::Changed(match asked {
                Asked::File(path) => format!("{path} is shorter than it was listed"),
                Asked::Listing => format!("{host} answered {shown} to a listing"),
            }),
            (_, Some("AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException"))
            | (300..400, _) => self.elsewhere(answer),
            (_, Some("InvalidObjectState")) => StorageError::AccessDenied(format!(
                "{} is archived: restore it before it can be read",
                if let Asked::File(path) = asked { path } else { "a file" }
            )),
            (401 | 403, _)
            | (
                400,
                Some(
                    "ExpiredToken"
                    | "ExpiredTokenException"
                    | "InvalidToken"
                    | "TokenRefreshRequired"
                    | "InvalidIdentityToken",
                ),
            ) => self.refused(answer, &shown),
            (200..300, _) => StorageError::Unreachable(format!(
                "{host} answered {status} to a request for a range: it does not serve ranges"
            )),
            (408 | 425 | 429 | 500.., _) | (_, Some("RequestTimeout" | "SlowDown" | "ServiceUnavailable")) => {
                answer.busy()
            }
            _ => StorageError::InvalidSpec(format!(
                "{host} answered {shown}: check endpoint, addressing and bucket; it may not be an S3 server"
            )),
        }
    }

    fn elsewhere(&self, answer: &Answer) -> StorageError {
        let (host, bucket) = (&answer.host, &self.name);
        let told = answer.headers.get(REGION).or_else(|| answer.elements.get(EXPECTED_REGION));
        StorageError::InvalidSpec(match told.filter(|text| is_region(text)) {
            Some(region) if *region != self.region => format!(
                "the bucket {bucket} at {host} is in region {region} and not in {}: set storage.s3.region to {region}",
                self.region
            ),
            _ => format!(
                "{host} says that the bucket {bucket} is elsewhere ({}), which is not followed: check storage.s3.region and endpoint",
                answer.status
            ),
        })
    }

    fn refused(&self, answer: &Answer, shown: &str) -> StorageError {
        let who = match &self.access {
            Access::Secret(name) => format!("the keys of Secret {name}"),
            Access::Anonymous => "requests without credentials".to_owned(),
            Access::Ambient => "the identity of the service account".to_owned(),
        };
        let remedy = match (answer.code, &self.access) {
            (Some("InvalidAccessKeyId"), Access::Secret(_)) => "AWS_ACCESS_KEY_ID is not known there",
            (Some("SignatureDoesNotMatch"), Access::Secret(_)) => {
                "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID"
            }
            (
                Some("ExpiredToken" | "ExpiredTokenException" | "InvalidToken" | "TokenRefreshRequired"),
                Access::Secret(_),
            ) => "AWS_SESSION_TOKEN is expired or not valid: renew the Secret",
            (Some("RequestTimeTooSkewed"), _) => "the clock of the node is wrong",
            (_, Access::Anonymous) => "make the bucket public or set storage.s3.credentials.secretRef",
            _ => "allow s3:ListBucket on the bucket and s3:GetObject on its objects",
        };
        StorageError::AccessDenied(format!(
            "{} refuses {who} ({shown}) for bucket {}: {remedy}",
            answer.host, self.name
        ))
    }
}

#[cfg(test)]
mod tests {
    use object_store::client::{HttpError, HttpErrorKind};

    use super::*;

    fn explain(status: u16, code: Option<&'static str>, asked: Asked<'_>) -> StorageError {
        let host = "s3.test:443".to_owned();
        let place = Place { host: host.clone(), ..Place::test("storage.s3", &MANNERS) };
        let (name, region) = ("training".to_owned(), "us-east-1".to_owned());
        let bucket = Bucket { place, name, region, access: Access::Secret("s3-creds".into()) };
        let headers = [(REGION, "eu-west-1".to_owned())].into();
        let answer = Answer { host, status, code, headers, elements: [].into(), retry_after: None };
        let outer = HttpError::new(HttpErrorKind::Unknown, answer);
        let outer = object_store::Error::Generic { store: "S3", source: Box::new(outer) };
        bucket.explain(&outer, asked)
    }

    #[test]
    fn answers_become_reasons() {
        use crate::contract::Reason;
        let file = Asked::File("model.safetensors");
        let table = [
            (404, Some("NoSuchBucket"), Asked::Listing, Reason::NotFound, "no bucket training"),
            (404, Some("NoSuchKey"), file, Reason::SourceChanged, "model.safetensors is gone"),
            (412, None, file, Reason::SourceChanged, "model.safetensors"),
            (304, None, file, Reason::SourceChanged, "model.safetensors"),
            (416, None, file, Reason::SourceChanged, "shorter"),
            (301, Some("PermanentRedirect"), Asked::Listing, Reason::InvalidSpec, "region to eu-west-1"),
            (400, Some("AuthorizationHeaderMalformed"), Asked::Listing, Reason::InvalidSpec, "eu-west-1"),
            (403, Some("InvalidAccessKeyId"), Asked::Listing, Reason::AccessDenied, "AWS_ACCESS_KEY_ID is not known"),
            (403, Some("SignatureDoesNotMatch"), Asked::Listing, Reason::AccessDenied, "AWS_SECRET_ACCESS_KEY"),
            (403, Some("AccessDenied"), file, Reason::AccessDenied, "Secret s3-creds (403 AccessDenied)"),
            (403, Some("InvalidObjectState"), file, Reason::AccessDenied, "archived"),
            (401, None, Asked::Listing, Reason::AccessDenied, "s3:ListBucket"),
            (400, Some("ExpiredToken"), Asked::Listing, Reason::AccessDenied, "renew"),
            (400, None, Asked::Listing, Reason::InvalidSpec, "may not be an S3 server"),
            (200, None, file, Reason::Unreachable, "does not serve ranges"),
            (429, None, file, Reason::Unreachable, "429"),
            (500, Some("InternalError"), file, Reason::Unreachable, "500 InternalError"),
            (503, Some("SlowDown"), file, Reason::Unreachable, "503 SlowDown"),
        ];
        for (status, code, asked, reason, part) in table {
            let error = explain(status, code, asked);
            assert_eq!(error.reason(), reason, "{status} {code:?}: {error}");
            assert!(error.to_string().contains(part), "{status} {code:?}: {error}");
        }
    }
}
