//! Who a container runs as: `USER` of the image, names looked up in the image's own account files.
//!
//! Pure. It must never look at the accounts of the host.
//! Sources: OCI image-spec 1.1 `config.md` (`User`), passwd(5), group(5).

use neap_sdk::limits;
use serde::{Deserialize, Serialize};

/// Numbers inside the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The home folder; empty where the image's accounts name none.
    #[serde(default)]
    pub home: String,
}

/// Resolves `user`, `uid`, `user:group`, …; empty means root.
pub fn resolve(text: &str, passwd: &[u8], group: &[u8]) -> Result<User, String> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let account =
        records(passwd).find(|fields| fields.len() >= 4 && (fields[0] == user || fields[2] == user));
    let uid = match (&account, user.parse()) {
        (Some(fields), _) => number(&fields[2])?,
        (None, Ok(uid)) => uid,
        (None, Err(_)) => return Err(format!("its user {user:?} is not in its /etc/passwd")),
    };
    let gid = match (wanted_group.filter(|name| !name.is_empty()), &account) {
        (Some(name), _) => match records(group).find(|fields| fields.len() >= 3 && fields[0] == name) {
            Some(fields) => number(&fields[2])?,
            None => name.parse().map_err(|_| format!("its group {name:?} is not in its /etc/group"))?,
        },
        (None, Some(fields)) => number(&fields[3])?,
        (None, None) => 0,
    };
    let groups = match (&account, wanted_group) {
        (Some(fields), None) => supplementary(&fields[0], group)?,
        _ => Vec::new(),
    };
    for id in [uid, gid].iter().chain(&groups) {
        if *id >= limits::CONTAINER_IDS_MAX {
            return Err(format!("it runs as id {id}; ids go up to {}", limits::CONTAINER_IDS_MAX - 1));
        }
    }
    let home = account.and_then(|fields| fields.get(5).cloned()).unwrap_or_default();
    Ok(User { uid, gid, groups, home })
}

fn supplementary(user: &str, group: &[u8]) -> Result<Vec<u32>, String> {
    records(group)
        .filter(|fields| fields.len() >= 4 && fields[3].split(',').any(|member| member == user))
        .map(|fields| number(&fields[2]))
        .collect()
}

fn records(file: &[u8]) -> impl Iterator<Item = Vec<String>> + '_ {
    file.split(|byte| *byte == b'\n')
        .map(|line| String::from_utf8_lossy(line).split(':').map(|field| field.trim().to_owned()).collect())
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} in its account files is not an id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/srv:/bin/false\n";
    const GROUP: &[u8] = b"root:x:0:\nweb:x:102:\nlogs:x:200:adm,web\n";

    #[test]
    fn names_and_numbers() {
        let user = |text| resolve(text, PASSWD, GROUP).map(|user| (user.uid, user.gid, user.groups));
        assert_eq!(user(""), Ok((0, 0, vec![])));
        assert_eq!(user("web"), Ok((101, 102, vec![200])));
        assert_eq!(user("101"), Ok((101, 102, vec![200])));
        assert_eq!(user("web:logs"), Ok((101, 200, vec![])));
        assert_eq!(user("5:6"), Ok((5, 6, vec![])));
        assert_eq!(user("4000"), Ok((4000, 0, vec![])));
        assert!(user("nobody").unwrap_err().contains("/etc/passwd"));
        assert!(user("web:none").unwrap_err().contains("/etc/group"));
        assert!(user("70000").unwrap_err().contains("65535"));
    }
}
