"""aws-c-io's error codes, and those of aws-c-common that reach its callers, with their meaning.

The public names are to be had from `aws_io_async.errors`.
"""

import enum
from collections.abc import Mapping


class _Code(enum.IntEnum):
    """A number as in C; `text` says in English what it means."""

    _value_: int
    text: str

    def __new__(cls, number: int, text: str = "") -> "_Code":
        self = int.__new__(cls, number)
        self._value_ = number
        self.text = text
        return self

    def __str__(self) -> str:
        return self.full_name

    @property
    def full_name(self) -> str:
        """The name that the C libraries give the code: `AWS_IO_SOCKET_CLOSED`."""
        return self.name if self.name.startswith("DEPRECATED_") else f"AWS_{self.name}"


class CommonErrorCode(_Code):
    """The codes of aws-c-common that aws-c-io raises too (`aws/common/error.h`)."""

    ERROR_OOM = 1, "out of memory"
    ERROR_NO_SPACE = 2, "no space left"
    ERROR_UNKNOWN = 3, "unknown error"
    ERROR_SHORT_BUFFER = 4, "the buffer is too small"
    ERROR_OVERFLOW_DETECTED = 5, "a number is too large"
    ERROR_UNSUPPORTED_OPERATION = 6, "the operation is not supported"
    ERROR_INVALID_BUFFER_SIZE = 7, "the buffer's size is invalid"
    ERROR_INVALID_ARGUMENT = 34, "invalid argument"
    ERROR_UNIMPLEMENTED = 37, "not implemented"
    ERROR_INVALID_STATE = 38, "the state does not allow the operation"
    ERROR_NO_PERMISSION = 43, "permission denied"
    ERROR_FILE_INVALID_PATH = 44, "no such file, or invalid path"
    ERROR_MAX_FDS_EXCEEDED = 45, "too many open files"
    ERROR_SYS_CALL_FAILURE = 46, "system call failed"
    ERROR_INVALID_FILE_HANDLE = 50, "the file handle is invalid"
    ERROR_PLATFORM_NOT_SUPPORTED = 53, "the platform does not support the operation"


class ErrorCode(_Code):
    """All codes of aws-c-io (`aws/io/io.h`), by its names without the leading `AWS_`.

    Those named `ERROR_PKCS11_CKR_...` are return values of PKCS#11 functions.
    """

    IO_CHANNEL_ERROR_ERROR_CANT_ACCEPT_INPUT = 1024, "the channel takes no input"
    IO_CHANNEL_UNKNOWN_MESSAGE_TYPE = (
        1025,
        "the channel was sent a message of a type nobody handles",
    )
    IO_CHANNEL_READ_WOULD_EXCEED_WINDOW = (
        1026,
        "a read message is larger than the read window of the next slot",
    )
    IO_EVENT_LOOP_ALREADY_ASSIGNED = 1027, "the I/O handle belongs to an event loop already"
    IO_EVENT_LOOP_SHUTDOWN = 1028, "the event loop was shut down while it was still in use"
    IO_TLS_ERROR_NEGOTIATION_FAILURE = 1029, "TLS negotiation failed"
    IO_TLS_ERROR_NOT_NEGOTIATED = 1030, "data was sent or read before TLS was negotiated"
    IO_TLS_ERROR_WRITE_FAILURE = 1031, "writing through TLS failed"
    IO_TLS_ERROR_ALERT_RECEIVED = 1032, "the peer sent a fatal TLS alert"
    IO_TLS_CTX_ERROR = 1033, "the TLS context could not be made"
    IO_TLS_VERSION_UNSUPPORTED = (
        1034,
        "the TLS version is not supported here: use the system's default",
    )
    IO_TLS_CIPHER_PREF_UNSUPPORTED = (
        1035,
        "the cipher preference is not supported here: use the system's default",
    )
    IO_MISSING_ALPN_MESSAGE = (
        1036,
        "a message with the negotiated protocol was expected, another came",
    )
    IO_UNHANDLED_ALPN_PROTOCOL_MESSAGE = 1037, "no handler was made for the negotiated protocol"
    IO_FILE_VALIDATION_FAILURE = 1038, "the file does not hold what it should"
    ERROR_IO_EVENT_LOOP_THREAD_ONLY = 1039, "the call is for the event loop's own thread only"
    ERROR_IO_ALREADY_SUBSCRIBED = 1040, "already subscribed to events"
    ERROR_IO_NOT_SUBSCRIBED = 1041, "not subscribed to events"
    ERROR_IO_OPERATION_CANCELLED = 1042, "the operation was cancelled before it was complete"
    IO_READ_WOULD_BLOCK = 1043, "nothing to read yet"
    IO_BROKEN_PIPE = 1044, "the other end of the pipe is closed"
    IO_SOCKET_UNSUPPORTED_ADDRESS_FAMILY = 1045, "the address family is not supported"
    IO_SOCKET_INVALID_OPERATION_FOR_TYPE = 1046, "sockets of this type have no such operation"
    IO_SOCKET_CONNECTION_REFUSED = 1047, "connection refused"
    IO_SOCKET_TIMEOUT = 1048, "the socket operation timed out"
    IO_SOCKET_NO_ROUTE_TO_HOST = 1049, "no route to host"
    IO_SOCKET_NETWORK_DOWN = 1050, "the network is down"
    IO_SOCKET_CLOSED = 1051, "the socket is closed"
    IO_SOCKET_NOT_CONNECTED = 1052, "the socket is not connected"
    IO_SOCKET_INVALID_OPTIONS = 1053, "invalid socket options"
    IO_SOCKET_ADDRESS_IN_USE = 1054, "the address is in use already"
    IO_SOCKET_INVALID_ADDRESS = 1055, "invalid socket address"
    IO_SOCKET_ILLEGAL_OPERATION_FOR_STATE = 1056, "the socket's state does not allow the operation"
    IO_SOCKET_CONNECT_ABORTED = 1057, "the connection was aborted before it was established"
    IO_DNS_QUERY_FAILED = (
        1058,
        "the name could not be resolved, and trying again is unlikely to help",
    )
    IO_DNS_INVALID_NAME = 1059, "the host name is invalid or does not exist"
    IO_DNS_NO_ADDRESS_FOR_HOST = 1060, "the host has no address"
    IO_DNS_HOST_REMOVED_FROM_CACHE = 1061, "the host was removed from the cache of names"
    IO_STREAM_INVALID_SEEK_POSITION = 1062, "the position is outside the stream"
    IO_STREAM_READ_FAILED = 1063, "reading from the stream's source failed"
    DEPRECATED_AWS_IO_INVALID_FILE_HANDLE = 1064, "the file handle is invalid"
    IO_SHARED_LIBRARY_LOAD_FAILURE = 1065, "the shared library could not be loaded"
    IO_SHARED_LIBRARY_FIND_SYMBOL_FAILURE = 1066, "the shared library has no such symbol"
    IO_TLS_NEGOTIATION_TIMEOUT = 1067, "TLS negotiation took too long"
    IO_TLS_ALERT_NOT_GRACEFUL = 1068, "a TLS alert other than a graceful close ended the connection"
    IO_MAX_RETRIES_EXCEEDED = 1069, "no retry: the largest number of retries was made"
    IO_RETRY_PERMISSION_DENIED = 1070, "no retry: the retry strategy does not permit it"
    IO_TLS_DIGEST_ALGORITHM_UNSUPPORTED = 1071, "the TLS digest algorithm is not supported"
    IO_TLS_SIGNATURE_ALGORITHM_UNSUPPORTED = 1072, "the TLS signature algorithm is not supported"
    ERROR_PKCS11_VERSION_UNSUPPORTED = 1073, "the PKCS#11 library's API version is not supported"
    ERROR_PKCS11_TOKEN_NOT_FOUND = 1074, "not exactly one PKCS#11 token matches"
    ERROR_PKCS11_KEY_NOT_FOUND = 1075, "not exactly one PKCS#11 key matches"
    ERROR_PKCS11_KEY_TYPE_UNSUPPORTED = 1076, "the PKCS#11 key's type is not supported"
    ERROR_PKCS11_UNKNOWN_CRYPTOKI_RETURN_VALUE = (
        1077,
        "a PKCS#11 function returned an unknown value",
    )
    ERROR_PKCS11_CKR_CANCEL = 1078
    ERROR_PKCS11_CKR_HOST_MEMORY = 1079
    ERROR_PKCS11_CKR_SLOT_ID_INVALID = 1080
    ERROR_PKCS11_CKR_GENERAL_ERROR = 1081
    ERROR_PKCS11_CKR_FUNCTION_FAILED = 1082
    ERROR_PKCS11_CKR_ARGUMENTS_BAD = 1083
    ERROR_PKCS11_CKR_NO_EVENT = 1084
    ERROR_PKCS11_CKR_NEED_TO_CREATE_THREADS = 1085
    ERROR_PKCS11_CKR_CANT_LOCK = 1086
    ERROR_PKCS11_CKR_ATTRIBUTE_READ_ONLY = 1087
    ERROR_PKCS11_CKR_ATTRIBUTE_SENSITIVE = 1088
    ERROR_PKCS11_CKR_ATTRIBUTE_TYPE_INVALID = 1089
    ERROR_PKCS11_CKR_ATTRIBUTE_VALUE_INVALID = 1090
    ERROR_PKCS11_CKR_ACTION_PROHIBITED = 1091
    ERROR_PKCS11_CKR_DATA_INVALID = 1092
    ERROR_PKCS11_CKR_DATA_LEN_RANGE = 1093
    ERROR_PKCS11_CKR_DEVICE_ERROR = 1094
    ERROR_PKCS11_CKR_DEVICE_MEMORY = 1095
    ERROR_PKCS11_CKR_DEVICE_REMOVED = 1096
    ERROR_PKCS11_CKR_ENCRYPTED_DATA_INVALID = 1097
    ERROR_PKCS11_CKR_ENCRYPTED_DATA_LEN_RANGE = 1098
    ERROR_PKCS11_CKR_FUNCTION_CANCELED = 1099
    ERROR_PKCS11_CKR_FUNCTION_NOT_PARALLEL = 1100
    ERROR_PKCS11_CKR_FUNCTION_NOT_SUPPORTED = 1101
    ERROR_PKCS11_CKR_KEY_HANDLE_INVALID = 1102
    ERROR_PKCS11_CKR_KEY_SIZE_RANGE = 1103
    ERROR_PKCS11_CKR_KEY_TYPE_INCONSISTENT = 1104
    ERROR_PKCS11_CKR_KEY_NOT_NEEDED = 1105
    ERROR_PKCS11_CKR_KEY_CHANGED = 1106
    ERROR_PKCS11_CKR_KEY_NEEDED = 1107
    ERROR_PKCS11_CKR_KEY_INDIGESTIBLE = 1108
    ERROR_PKCS11_CKR_KEY_FUNCTION_NOT_PERMITTED = 1109
    ERROR_PKCS11_CKR_KEY_NOT_WRAPPABLE = 1110
    ERROR_PKCS11_CKR_KEY_UNEXTRACTABLE = 1111
    ERROR_PKCS11_CKR_MECHANISM_INVALID = 1112
    ERROR_PKCS11_CKR_MECHANISM_PARAM_INVALID = 1113
    ERROR_PKCS11_CKR_OBJECT_HANDLE_INVALID = 1114
    ERROR_PKCS11_CKR_OPERATION_ACTIVE = 1115
    ERROR_PKCS11_CKR_OPERATION_NOT_INITIALIZED = 1116
    ERROR_PKCS11_CKR_PIN_INCORRECT = 1117
    ERROR_PKCS11_CKR_PIN_INVALID = 1118
    ERROR_PKCS11_CKR_PIN_LEN_RANGE = 1119
    ERROR_PKCS11_CKR_PIN_EXPIRED = 1120
    ERROR_PKCS11_CKR_PIN_LOCKED = 1121
    ERROR_PKCS11_CKR_SESSION_CLOSED = 1122
    ERROR_PKCS11_CKR_SESSION_COUNT = 1123
    ERROR_PKCS11_CKR_SESSION_HANDLE_INVALID = 1124
    ERROR_PKCS11_CKR_SESSION_PARALLEL_NOT_SUPPORTED = 1125
    ERROR_PKCS11_CKR_SESSION_READ_ONLY = 1126
    ERROR_PKCS11_CKR_SESSION_EXISTS = 1127
    ERROR_PKCS11_CKR_SESSION_READ_ONLY_EXISTS = 1128
    ERROR_PKCS11_CKR_SESSION_READ_WRITE_SO_EXISTS = 1129
    ERROR_PKCS11_CKR_SIGNATURE_INVALID = 1130
    ERROR_PKCS11_CKR_SIGNATURE_LEN_RANGE = 1131
    ERROR_PKCS11_CKR_TEMPLATE_INCOMPLETE = 1132
    ERROR_PKCS11_CKR_TEMPLATE_INCONSISTENT = 1133
    ERROR_PKCS11_CKR_TOKEN_NOT_PRESENT = 1134
    ERROR_PKCS11_CKR_TOKEN_NOT_RECOGNIZED = 1135
    ERROR_PKCS11_CKR_TOKEN_WRITE_PROTECTED = 1136
    ERROR_PKCS11_CKR_UNWRAPPING_KEY_HANDLE_INVALID = 1137
    ERROR_PKCS11_CKR_UNWRAPPING_KEY_SIZE_RANGE = 1138
    ERROR_PKCS11_CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT = 1139
    ERROR_PKCS11_CKR_USER_ALREADY_LOGGED_IN = 1140
    ERROR_PKCS11_CKR_USER_NOT_LOGGED_IN = 1141
    ERROR_PKCS11_CKR_USER_PIN_NOT_INITIALIZED = 1142
    ERROR_PKCS11_CKR_USER_TYPE_INVALID = 1143
    ERROR_PKCS11_CKR_USER_ANOTHER_ALREADY_LOGGED_IN = 1144
    ERROR_PKCS11_CKR_USER_TOO_MANY_TYPES = 1145
    ERROR_PKCS11_CKR_WRAPPED_KEY_INVALID = 1146
    ERROR_PKCS11_CKR_WRAPPED_KEY_LEN_RANGE = 1147
    ERROR_PKCS11_CKR_WRAPPING_KEY_HANDLE_INVALID = 1148
    ERROR_PKCS11_CKR_WRAPPING_KEY_SIZE_RANGE = 1149
    ERROR_PKCS11_CKR_WRAPPING_KEY_TYPE_INCONSISTENT = 1150
    ERROR_PKCS11_CKR_RANDOM_SEED_NOT_SUPPORTED = 1151
    ERROR_PKCS11_CKR_RANDOM_NO_RNG = 1152
    ERROR_PKCS11_CKR_DOMAIN_PARAMS_INVALID = 1153
    ERROR_PKCS11_CKR_CURVE_NOT_SUPPORTED = 1154
    ERROR_PKCS11_CKR_BUFFER_TOO_SMALL = 1155
    ERROR_PKCS11_CKR_SAVED_STATE_INVALID = 1156
    ERROR_PKCS11_CKR_INFORMATION_SENSITIVE = 1157
    ERROR_PKCS11_CKR_STATE_UNSAVEABLE = 1158
    ERROR_PKCS11_CKR_CRYPTOKI_NOT_INITIALIZED = 1159
    ERROR_PKCS11_CKR_CRYPTOKI_ALREADY_INITIALIZED = 1160
    ERROR_PKCS11_CKR_MUTEX_BAD = 1161
    ERROR_PKCS11_CKR_MUTEX_NOT_LOCKED = 1162
    ERROR_PKCS11_CKR_NEW_PIN_MODE = 1163
    ERROR_PKCS11_CKR_NEXT_OTP = 1164
    ERROR_PKCS11_CKR_EXCEEDED_MAX_ITERATIONS = 1165
    ERROR_PKCS11_CKR_FIPS_SELF_TEST_FAILED = 1166
    ERROR_PKCS11_CKR_LIBRARY_LOAD_FAILED = 1167
    ERROR_PKCS11_CKR_PIN_TOO_WEAK = 1168
    ERROR_PKCS11_CKR_PUBLIC_KEY_INVALID = 1169
    ERROR_PKCS11_CKR_FUNCTION_REJECTED = 1170
    ERROR_IO_PINNED_EVENT_LOOP_MISMATCH = (
        1171,
        "the requested event loop is not one of the bootstrap's group",
    )
    ERROR_PKCS11_ENCODING_ERROR = 1172, "a structure for PKCS#11 could not be encoded as DER"
    IO_TLS_ERROR_DEFAULT_TRUST_STORE_NOT_FOUND = (
        1173,
        "no trust store found: install CA certificates, or override it",
    )
    IO_STREAM_SEEK_FAILED = 1174, "seeking in the stream's source failed"
    IO_STREAM_GET_LENGTH_FAILED = 1175, "the length of the stream's source could not be found out"
    IO_STREAM_SEEK_UNSUPPORTED = 1176, "the stream's source cannot seek"
    IO_STREAM_GET_LENGTH_UNSUPPORTED = 1177, "the stream's source does not know its length"
    IO_TLS_ERROR_READ_FAILURE = 1178, "reading through TLS failed"
    ERROR_PEM_MALFORMED = 1179, "malformed PEM"
    IO_SOCKET_MISSING_EVENT_LOOP = 1180, "the socket has no event loop"
    IO_TLS_UNKNOWN_ROOT_CERTIFICATE = 1181, "the certificate's issuer is not trusted"
    IO_TLS_NO_ROOT_CERTIFICATE_FOUND = 1182, "the certificate's chain has no root"
    IO_TLS_CERTIFICATE_EXPIRED = 1183, "the certificate has expired"
    IO_TLS_CERTIFICATE_NOT_YET_VALID = 1184, "the certificate is not valid yet"
    IO_TLS_BAD_CERTIFICATE = 1185, "the certificate is malformed or not acceptable"
    IO_TLS_PEER_CERTIFICATE_EXPIRED = 1186, "the peer finds our certificate expired"
    IO_TLS_BAD_PEER_CERTIFICATE = 1187, "the peer finds our certificate malformed or not acceptable"
    IO_TLS_PEER_CERTIFICATE_REVOKED = 1188, "the certificate has been revoked"
    IO_TLS_PEER_CERTIFICATE_UNKNOWN = 1189, "the peer does not accept our certificate"
    IO_TLS_INTERNAL_ERROR = 1190, "internal error in TLS"
    IO_TLS_CLOSED_GRACEFUL = 1191, "the peer has closed the TLS connection"
    IO_TLS_CLOSED_ABORT = 1192, "the connection ended without a TLS close"
    IO_TLS_INVALID_CERTIFICATE_CHAIN = 1193, "the certificate's chain is invalid"
    IO_TLS_HOST_NAME_MISMATCH = 1194, "the certificate is for another host name"
    IO_DNS_QUERY_AGAIN = 1195, "the name could not be resolved for now"


for _code in ErrorCode:
    if not _code.text:  # the return values: their names say it all
        _code.text = f"a PKCS#11 function returned {_code.name.removeprefix('ERROR_PKCS11_')}"

Code = ErrorCode | CommonErrorCode
"""What an error may carry."""


def _known(code: int) -> Code:
    if isinstance(code, Code):
        return code
    known: type[Code] = ErrorCode if code >= min(ErrorCode) else CommonErrorCode
    return known(code)


def error_name(code: int) -> str:
    """A code's name in aws-c-io: `AWS_IO_SOCKET_CLOSED`. Raises ValueError for an unknown code."""
    return _known(code).full_name


def error_str(code: int) -> str:
    """What a code means, in English. Raises ValueError for an unknown code."""
    return _known(code).text


RETRYABLE = frozenset(
    {
        ErrorCode.IO_SOCKET_CLOSED,
        ErrorCode.IO_SOCKET_CONNECT_ABORTED,
        ErrorCode.IO_SOCKET_CONNECTION_REFUSED,
        ErrorCode.IO_SOCKET_NETWORK_DOWN,
        ErrorCode.IO_SOCKET_TIMEOUT,
        ErrorCode.IO_DNS_QUERY_AGAIN,
        ErrorCode.IO_DNS_NO_ADDRESS_FOR_HOST,
        ErrorCode.IO_TLS_NEGOTIATION_TIMEOUT,
    }
)

TRANSIENT = RETRYABLE | {
    ErrorCode.IO_SOCKET_NO_ROUTE_TO_HOST,
    ErrorCode.IO_SOCKET_NOT_CONNECTED,
    ErrorCode.IO_BROKEN_PIPE,
    ErrorCode.IO_DNS_QUERY_FAILED,
    ErrorCode.IO_TLS_CLOSED_ABORT,
    ErrorCode.IO_TLS_CLOSED_GRACEFUL,
}


NOT_RAISED: Mapping[ErrorCode, str] = {
    ErrorCode.DEPRECATED_AWS_IO_INVALID_FILE_HANDLE: "deprecated: it is ERROR_INVALID_FILE_HANDLE",
    ErrorCode.IO_TLS_ALERT_NOT_GRACEFUL: "Windows: what its TLS calls an expired context",
}
"""The codes that nothing here raises, and why: every other one is raised by somebody."""


def is_retryable(code: int) -> bool:
    """Whether the same operation may well succeed a little later; a recommendation only."""
    return code in RETRYABLE


class RetryErrorType(enum.Enum):
    """What a retry strategy wants to know about a failure (`aws/io/retry_strategy.h`)."""

    TRANSIENT = enum.auto()
    """On the level of the connection: whether the operation had an effect is not known."""
    THROTTLING = enum.auto()
    """The server asked for less, as HTTP's 429 and 503 do."""
    SERVER_ERROR = enum.auto()
    """The server failed in a way that may pass."""
    CLIENT_ERROR = enum.auto()
    """What the client did; it counts against no budget, as HTTP's 401 challenge."""
