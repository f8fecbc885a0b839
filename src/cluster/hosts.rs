//! Who takes part: addresses by the number of the process, as timely's programs name them.

use std::path::Path;

use super::ClusterError;

/// The port of process 0 where no hostfile says otherwise; process `p` listens on the `p`-th after it. Timely's default.
const PORT: usize = 2101;

/// The processes of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The number of this process.
    pub process: usize,
    /// Workers of each process.
    pub workers: usize,
    /// `host:port` of each process, by number.
    pub addresses: Vec<String>,
}

impl Membership {
    /// Processes on this machine, or on the hosts that a file names: an address on each line, of which the first `processes`
    /// count. Empty lines and those that begin with `#` do not.
    pub fn new(workers: usize, process: usize, processes: usize, hostfile: Option<&Path>) -> Result<Self, ClusterError> {
        let addresses = match hostfile {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| ClusterError::Hosts(format!("hostfile {} cannot be read: {error}", path.display())))?;
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
                let addresses: Vec<String> = lines.take(processes).map(str::to_owned).collect();
                if addresses.len() < processes {
                    let (path, found) = (path.display(), addresses.len());
                    return Err(ClusterError::Hosts(format!("hostfile {path} names {found} addresses, there are {processes} processes")));
                }
                addresses
            }
            None => (0..processes).map(|process| format!("localhost:{}", PORT + process)).collect(),
        };
        let membership = Self { process, workers, addresses };
        membership.check().map_err(ClusterError::Hosts)?;
        Ok(membership)
    }

    fn check(&self) -> Result<(), String> {
        let processes = self.processes();
        if self.process >= processes {
            return Err(format!("there is no process {} of {processes}\n  hint: -p counts from 0", self.process));
        }
        for (number, address) in self.addresses.iter().enumerate() {
            let port = address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>().ok())?);
            if port.is_none_or(|port| port == 0) {
                return Err(format!("{address:?} is no address\n  hint: a hostfile has host:port on each line"));
            }
            if let Some(first) = self.addresses[..number].iter().position(|other| other == address) {
                return Err(format!("processes {first} and {number} have the same address {address}"));
            }
        }
        Ok(())
    }

    /// The number of processes.
    pub fn processes(&self) -> usize {
        self.addresses.len()
    }

    /// The address of this process.
    pub fn own_address(&self) -> &str {
        &self.addresses[self.process]
    }

    /// How many processes with smaller numbers are on the same host.
    pub fn place_on_host(&self) -> u16 {
        let host = |address: &str| address.rsplit_once(':').map(|(host, _)| host.to_owned());
        self.addresses[..self.process].iter().filter(|address| host(address) == host(self.own_address())).count() as u16
    }

    /// A process by number and address.
    pub(super) fn name(&self, process: usize) -> String {
        format!("process {process} ({})", self.addresses[process])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hostfile(text: &str, processes: usize) -> Result<Membership, ClusterError> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("it can be written");
        Membership::new(1, 0, processes, Some(file.path()))
    }

    #[test]
    fn the_first_lines_of_a_hostfile_count() {
        let hosts = hostfile("# two machines\nred:2101\n\n red:2102 \nblue:2101\n", 3).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(hosts.addresses, ["red:2101", "red:2102", "blue:2101"]);
        assert_eq!(Membership { process: 1, ..hosts.clone() }.place_on_host(), 1);
        assert_eq!(Membership { process: 2, ..hosts }.place_on_host(), 0);
    }

    #[test]
    fn wrong_hostfiles_are_refused() {
        for (text, why) in
            [("a:1\n", "names 1 addresses"), ("a:1\na:1\n", "same address"), ("a:1\nb\n", "is no address"), ("a:1\n:2\n", "no address")]
        {
            let error = hostfile(text, 2).expect_err(text);
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
        assert!(Membership::new(1, 2, 2, None).is_err());
    }

    #[test]
    fn without_a_hostfile_the_ports_are_those_of_timely() {
        let hosts = Membership::new(2, 1, 2, None).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(hosts.addresses, ["localhost:2101", "localhost:2102"]);
    }
}
