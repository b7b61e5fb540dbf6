//! placeholder
/// p
pub mod ask {
    use crate::net::addr::ConnectAddr;
    /// p
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Mode {
        /// p
        Plain,
        /// p
        Squid,
    }
    /// p
    #[derive(Debug, PartialEq)]
    pub struct Options {
        /// p
        pub addresses: Vec<ConnectAddr>,
        /// p
        pub mode: Mode,
        /// p
        pub timeout: std::time::Duration,
        /// p
        pub on_failure: Vec<u8>,
    }
    /// p
    /// # Errors
    /// p
    pub fn run(_: Options) -> Result<(), crate::error::Error> {
        Ok(())
    }
}
