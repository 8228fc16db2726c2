//! nginx: files with ranges and without, behind a password, with TLS, with redirects (process and file I/O).

use std::{
    fs,
    path::Path,
    process::{Child, Command},
};

use anyhow::Result;
use checkpoint_operator_e2e::{paths, servers};

use super::{folder, listens, port};

pub const USER: &str = "reader";
pub const PASSWORD: &str = "canary-password";

/// Addresses of the same files.
#[allow(dead_code, reason = "the tests in the cluster use one of them")]
pub struct Server {
    pub plain: String,
    pub without_ranges: String,
    /// Asks for [`USER`] and [`PASSWORD`].
    pub password: String,
    /// Answers everything with a page for people.
    pub pages: String,
    pub tls: String,
    _guard: Child,
}

impl Server {
    /// `fill` writes what is served into a folder. Below `renamed`, `elsewhere` and `to-password`, requests are sent on to its
    /// folder `llama`.
    pub fn start(address: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        let folder = folder("web")?;
        let ports = [port(address)?, port(address)?, port(address)?, port(address)?, port(address)?];
        fs::create_dir(folder.join("files"))?;
        fill(&folder.join("files"))?;
        fs::write(folder.join("users"), format!("{USER}:{{PLAIN}}{PASSWORD}\n"))?;
        fs::write(folder.join("nginx.conf"), configuration(&folder, address, ports))?;
        let mut server = Command::new("/usr/sbin/nginx");
        server.arg("-p").arg(&folder).arg("-c").arg(folder.join("nginx.conf")).args(["-e", "stderr"]);
        let guard = servers::start(&folder, &server)?;
        listens("nginx", address, ports[4])?;
        let [plain, without_ranges, password, pages, tls] = ports;
        let http = |port| format!("http://{address}:{port}");
        let (plain, without_ranges, password, pages) = (http(plain), http(without_ranges), http(password), http(pages));
        Ok(Self { plain, without_ranges, password, pages, tls: format!("https://{address}:{tls}"), _guard: guard })
    }
}

fn configuration(folder: &Path, address: &str, [plain, without_ranges, password, pages, tls]: [u16; 5]) -> String {
    let folder = folder.display();
    let certificates = paths::workspace().join("src/storage/backends/remote/fixtures");
    let certificates = certificates.display();
    format!(
        "daemon off; master_process off; pid {folder}/pid; events {{}}
        http {{
            access_log off; autoindex off; gzip on; gzip_types *; root {folder}/files;
            client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
            uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
            server {{
                listen {address}:{plain};
                location /renamed/ {{ rewrite ^/renamed/(.*)$ /llama/$1 redirect; }}
                location /elsewhere/ {{ rewrite ^/elsewhere/(.*)$ http://{address}:{without_ranges}/llama/$1 redirect; }}
                location /to-password/ {{ rewrite ^/to-password/(.*)$ http://{address}:{password}/llama/$1 redirect; }}
                location /round/ {{ rewrite ^ /round/x redirect; }}
            }}
            server {{ listen {address}:{without_ranges}; max_ranges 0; }}
            server {{ listen {address}:{password}; auth_basic x; auth_basic_user_file {folder}/users; }}
            server {{
                listen {address}:{pages};
                location / {{ default_type text/html; return 200 '<!DOCTYPE html><title>canary</title>'; }}
            }}
            server {{
                listen {address}:{tls} ssl;
                ssl_certificate {certificates}/server.crt; ssl_certificate_key {certificates}/server.key;
            }}
        }}"
    )
}
