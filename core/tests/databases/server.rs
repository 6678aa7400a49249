//! Database servers of a test's own, in a temporary folder, as the user that their packages make: to be restarted, and to
//! ask for passwords. They end with the test.

use std::ffi::CString;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sqlx::{Connection, MySqlConnection, PgConnection};
use tempfile::TempDir;

/// The password of the servers' administrator.
pub const PASSWORD: &str = "hunter2";

/// A server and its folder.
pub struct Server {
    folder: TempDir,
    program: PathBuf,
    user: &'static str,
    arguments: Vec<String>,
    process: Child,
    /// With user and password, without a database.
    pub url: String,
    pub port: u16,
}

impl Server {
    /// PostgreSQL with the user `admin`.
    pub async fn postgres() -> Server {
        let bin = newest("/usr/lib/postgresql").map_or_else(|| PathBuf::from("/usr/bin"), |version| version.join("bin"));
        let (folder, port) = (folder("postgres"), free_port());
        let data = folder.path().join("data");
        let password = folder.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        run(command(&bin.join("initdb"), "postgres")
            .arg("-D")
            .arg(&data)
            .args(["-N", "-U", "admin", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--pwfile"])
            .arg(password));
        let arguments = ["-D", data.to_str().unwrap(), "-p", &port.to_string(), "-k", folder.path().to_str().unwrap(), "-h", "127.0.0.1", "-F"];
        let arguments = arguments.map(str::to_owned).to_vec();
        let url = format!("postgres://admin:{PASSWORD}@127.0.0.1:{port}");
        Self::start(folder, bin.join("postgres"), "postgres", arguments, url, port).await
    }

    /// MariaDB with the user `root`.
    pub async fn mariadb() -> Server {
        let (folder, port) = (folder("mysql"), free_port());
        let data = format!("--datadir={}", folder.path().join("data").display());
        run(command(Path::new("/usr/bin/mariadb-install-db"), "mysql").args([
            "--no-defaults",
            &data,
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]));
        let start = folder.path().join("start.sql");
        std::fs::write(&start, format!("ALTER USER root@localhost IDENTIFIED BY '{PASSWORD}';\n")).unwrap();
        let socket = folder.path().join("socket");
        let arguments = vec![
            "--no-defaults".into(),
            data,
            format!("--port={port}"),
            format!("--socket={}", socket.display()),
            format!("--pid-file={}", folder.path().join("pid").display()),
            format!("--init-file={}", start.display()),
            "--bind-address=127.0.0.1".into(),
            "--innodb-buffer-pool-size=32M".into(),
        ];
        let url = format!("mysql://root:{PASSWORD}@127.0.0.1:{port}");
        Self::start(folder, "/usr/sbin/mariadbd".into(), "mysql", arguments, url, port).await
    }

    async fn start(folder: TempDir, program: PathBuf, user: &'static str, arguments: Vec<String>, url: String, port: u16) -> Server {
        let process = spawn(folder.path(), &program, user, &arguments);
        let server = Server { folder, program, user, arguments, process, url, port };
        server.ready().await;
        server
    }

    /// Waits until it lets somebody in.
    async fn ready(&self) {
        let connect = async {
            loop {
                let done = match self.url.starts_with("mysql") {
                    true => MySqlConnection::connect(&self.url).await.map(drop),
                    false => PgConnection::connect(&format!("{}/postgres", self.url)).await.map(drop),
                };
                if done.is_ok() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), connect).await.expect("the server starts");
    }

    /// Kills it, and starts it again.
    pub async fn restart(&mut self) {
        self.end();
        self.process = spawn(self.folder.path(), &self.program, self.user, &self.arguments);
        self.ready().await;
    }

    /// Has it take part in TLS from now on, with a certificate for 127.0.0.1. Gives the file of the authority that signed it.
    pub async fn offer_tls(&mut self) -> PathBuf {
        let file = |name: &str| self.folder.path().join(name);
        let (authority, request) = (file("ca.pem"), file("server.csr"));
        let openssl = || command(Path::new("/usr/bin/openssl"), self.user);
        run(openssl()
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=An authority of the tests"])
            .args(["-addext", "keyUsage=critical,keyCertSign", "-keyout"])
            .arg(file("ca.key"))
            .arg("-out")
            .arg(&authority));
        run(openssl().args(["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=server", "-keyout"]).arg(file("server.key")).arg("-out").arg(&request));
        // Version 3, which alone has names besides the subject's.
        std::fs::write(file("server.ext"), "subjectAltName = IP:127.0.0.1\nextendedKeyUsage = serverAuth\n").unwrap();
        run(openssl()
            .args(["x509", "-req", "-days", "2", "-CAcreateserial", "-CA"])
            .arg(&authority)
            .arg("-CAkey")
            .arg(file("ca.key"))
            .arg("-extfile")
            .arg(file("server.ext"))
            .arg("-in")
            .arg(&request)
            .arg("-out")
            .arg(file("server.pem")));
        let (certificate, key) = (file("server.pem").display().to_string(), file("server.key").display().to_string());
        let arguments = match self.user {
            "postgres" => vec!["-c".into(), "ssl=on".into(), "-c".into(), format!("ssl_cert_file={certificate}"), "-c".into(), format!("ssl_key_file={key}")],
            _ => vec![format!("--ssl-cert={certificate}"), format!("--ssl-key={key}")],
        };
        self.arguments.extend(arguments);
        self.restart().await;
        authority
    }

    /// At once: PostgreSQL's processes end with SIGQUIT, without a checkpoint.
    fn end(&mut self) {
        let signal = if self.user == "postgres" { libc::SIGQUIT } else { libc::SIGKILL };
        // SAFETY: a process of ours that has not been waited for.
        unsafe { libc::kill(self.process.id() as i32, signal) };
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn newest(folder: &str) -> Option<PathBuf> {
    std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).max_by_key(|path| path.file_name()?.to_str()?.parse::<u32>().ok())
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Servers do not run as root: with root's rights another user is taken.
fn unprivileged(user: &str) -> Option<(u32, u32)> {
    // SAFETY: getpwnam gives null or a record that is read at once, on one thread.
    unsafe {
        if libc::geteuid() != 0 {
            return None;
        }
        let record = libc::getpwnam(CString::new(user).unwrap().as_ptr());
        assert!(!record.is_null(), "there must be a user {user} for the tests");
        Some(((*record).pw_uid, (*record).pw_gid))
    }
}

fn folder(user: &str) -> TempDir {
    let folder = tempfile::Builder::new().prefix("framewright-server-").tempdir().unwrap();
    if let Some((uid, gid)) = unprivileged(user) {
        std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid)).unwrap();
    }
    folder
}

fn command(program: &Path, user: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).current_dir("/");
    if let Some((uid, gid)) = unprivileged(user) {
        command.uid(uid).gid(gid);
    }
    command
}

fn spawn(folder: &Path, program: &Path, user: &str, arguments: &[String]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    command(program, user).args(arguments).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
    assert!(output.status.success(), "{:?}: {}{}", command.get_program(), String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}
