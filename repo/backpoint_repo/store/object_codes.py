"""What object stores call their errors: Amazon's codes, and those of others who speak as it does.

Tables only, of the `<Code>` in an answer and of HTTP's status; `object_faults.py` decides by them.
"""

from __future__ import annotations

from typing import Final

NO_BUCKET_CODES: Final = {"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"}
MISSING_CODES: Final = {*NO_BUCKET_CODES, "NoSuchKey", "NoSuchVersion", "BlobNotFound"}
CREDENTIAL_FAULTS: Final = {
    "InvalidAccessKeyId": "it does not know the access key; check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
    "InvalidSecurity": "the credentials are wrong",
    "AuthenticationFailed": "the credentials are wrong",
    "InvalidAuthenticationInfo": "the credentials are wrong",
    "InvalidToken": "the session token is wrong; check AWS_SESSION_TOKEN",
    "ExpiredToken": "the credential has expired, get a new one",
    "ExpiredTokenException": "the credential has expired, get a new one",
    "TokenRefreshRequired": "the credential has expired, get a new one",
    "RequestTimeTooSkewed": "set this machine's clock, it is too far from the store's",
    "RequestExpired": "set this machine's clock, it is too far from the store's",
    "AccountProblem": "there is a problem with the account",
    "NotSignedUp": "the account has no object store",
}
FORBIDDEN_CODES: Final = {
    *("AccessDenied", "AllAccessDisabled", "AuthorizationFailure", "MethodNotAllowed"),
    *("AuthorizationPermissionMismatch", "InsufficientAccountPermissions", "ObjectLocked"),
}
FULL_CODES: Final = {
    *("InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "XMinioQuotaExceeded"),
    *("XMinioAdminBucketQuotaExceeded", "AccountStorageLimitExceeded"),
}
REGION_CODES: Final = {
    *("AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect", "Redirect"),
    *("IllegalLocationConstraintException", "InvalidRegion", "InvalidLocationConstraint"),
}
PASSING_CODES: Final = {
    *("SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "ServerBusy", "Busy"),
    *("InternalError", "RequestTimeout", "OperationTimedOut", "TooManyRequests", "Throttling"),
    *("IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "RequestLimitExceeded"),
}
PASSING_STATUS: Final = {408, 425, 429, 500, 502, 503, 504, *range(520, 531)}
