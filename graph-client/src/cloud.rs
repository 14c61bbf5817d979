//! Microsoft's clouds and their addresses. A token of one cloud is useless in another.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// One of Microsoft's separate clouds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Cloud {
    /// The public cloud, and GCC.
    #[default]
    #[serde(rename = "global")]
    Global,
    /// US Government L4 (GCC High).
    #[serde(rename = "usgov-l4")]
    UsgovL4,
    /// US Government L5 (DoD).
    #[serde(rename = "usgov-l5")]
    UsgovL5,
    /// China, run by 21Vianet.
    #[serde(rename = "china")]
    China,
}

/// The text names no cloud.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a cloud: expected global, usgov-l4, usgov-l5 or china")]
pub struct ParseCloudError(pub String);

impl Cloud {
    /// Every cloud.
    pub const ALL: &'static [Self] = &[Self::Global, Self::UsgovL4, Self::UsgovL5, Self::China];

    /// The word an operator types.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::UsgovL4 => "usgov-l4",
            Self::UsgovL5 => "usgov-l5",
            Self::China => "china",
        }
    }

    /// Where tokens come from, without a slash at the end.
    pub fn login_url(self) -> &'static str {
        match self {
            Self::Global => "https://login.microsoftonline.com",
            Self::UsgovL4 | Self::UsgovL5 => "https://login.microsoftonline.us",
            Self::China => "https://login.chinacloudapi.cn",
        }
    }

    /// The root of Graph, without a version and without a slash at the end.
    pub fn graph_url(self) -> &'static str {
        match self {
            Self::Global => "https://graph.microsoft.com",
            Self::UsgovL4 => "https://graph.microsoft.us",
            Self::UsgovL5 => "https://dod-graph.microsoft.us",
            Self::China => "https://microsoftgraph.chinacloudapi.cn",
        }
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Cloud {
    type Err = ParseCloudError;

    fn from_str(text: &str) -> Result<Self, ParseCloudError> {
        Self::ALL
            .iter()
            .copied()
            .find(|cloud| cloud.as_str() == text)
            .ok_or_else(|| ParseCloudError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cloud_reads_back_what_it_writes() {
        for cloud in Cloud::ALL {
            assert_eq!(cloud.to_string().parse::<Cloud>(), Ok(*cloud));
        }
        assert_eq!("mars".parse::<Cloud>(), Err(ParseCloudError("mars".into())));
    }
}
