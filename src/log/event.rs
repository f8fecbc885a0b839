//! What a log holds: values of one author's type, known by name, version and fields.
use columnar::Columnar;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// An event type. Rows read from the log are borrowed: `columnar::Ref<'_, E>`.
///
/// `NAME`, `VERSION` and `FIELDS` are written into the log when it is created, and compared when it is opened:
/// the bytes of a block carry no types of their own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "not an event",
    note = "an event derives `Clone, Debug, Serialize, Deserialize, Columnar` and names itself: `impl Event for {Self} {{ const NAME .. const VERSION .. const FIELDS .. }}`"
)]
pub trait Event: Columnar<Container: Send + Sync> + Clone + Send + Sync + std::fmt::Debug + Serialize + DeserializeOwned + 'static {
    /// The name of the type, the same in every program that reads the log.
    const NAME: &'static str;
    /// Raised when the fields change.
    const VERSION: u32;
    /// The fields in order, as `name: type`.
    const FIELDS: &'static [&'static str];
}

/// The description of an event type, as a log stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventType {
    /// [`Event::NAME`].
    pub name: String,
    /// [`Event::VERSION`].
    pub version: u32,
    /// [`Event::FIELDS`].
    pub fields: Vec<String>,
    /// 64-bit hash of the three, for a quick comparison.
    pub fingerprint: String,
}

impl EventType {
    /// The description of `E`.
    pub fn of<E: Event>() -> Self {
        let fields: Vec<String> = E::FIELDS.iter().map(|field| field.to_string()).collect();
        let described = format!("{}\n{}\n{}", E::NAME, E::VERSION, fields.join("\n"));
        EventType { name: E::NAME.to_string(), version: E::VERSION, fields, fingerprint: format!("{:016x}", fnv1a(described.as_bytes())) }
    }
}

impl std::fmt::Display for EventType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} v{} ({})", self.name, self.version, self.fields.join(", "))
    }
}

/// FNV-1a, 64 bit (Fowler, Noll, Vo): stable for ever, which `std`'s hashers do not promise.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
