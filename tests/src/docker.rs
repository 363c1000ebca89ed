//! What a Docker engine has of a provider's.

use std::{collections::HashMap, net::Ipv4Addr};

use alloy::primitives::Address;
use anyhow::Context as _;
use bollard::{
    errors::Error as DockerError,
    exec::{CreateExecOptions, StartExecOptions, StartExecResults},
    models::{ContainerCreateBody, ContainerInspectResponse, HostConfig},
    query_parameters::{
        CreateImageOptionsBuilder, KillContainerOptions, ListContainersOptionsBuilder,
        ListImagesOptionsBuilder, ListNetworksOptionsBuilder, ListSecretsOptionsBuilder,
        ListServicesOptionsBuilder, ListVolumesOptionsBuilder, LogsOptionsBuilder,
        RemoveContainerOptionsBuilder, RemoveImageOptions, RemoveVolumeOptions,
        TagImageOptionsBuilder,
    },
};
use bytes::Bytes;
use futures::TryStreamExt as _;

use crate::site::Site;

/// The label of containers out of which a file of their image is read.
const LOOK: &str = "roadstead.look";

/// A Docker engine.
#[derive(Debug, Clone)]
pub struct Docker(pub(crate) bollard::Docker);

/// A container, as far as stories look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Docker's word for its state.
    pub state: String,
    /// The lease that it belongs to.
    pub lease: u64,
    /// Its service.
    pub service: String,
    /// Its address.
    pub ip: Option<Ipv4Addr>,
}

impl Container {
    /// Its site on port 8080, past the provider.
    ///
    /// # Errors
    /// When it has no address.
    pub fn site(&self, host: &str) -> anyhow::Result<Site> {
        let ip = self.ip.with_context(|| format!("{self:?} has no address"))?;
        Site::new((ip, 8080).into(), host)
    }
}

impl Docker {
    /// The machine's engine, or the one at `host`, a URL as in `DOCKER_HOST`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn connect(host: Option<&str>) -> anyhow::Result<Self> {
        let docker = match host {
            Some(host) => {
                bollard::Docker::connect_with_socket(host, 120, bollard::API_DEFAULT_VERSION)?
            }
            None => bollard::Docker::connect_with_defaults()?,
        };
        Ok(Self(docker.negotiate_version().await.context("no Docker engine answers")?))
    }

    /// The containers of a provider, those that do not run included.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn containers(&self, provider: Address) -> anyhow::Result<Vec<Container>> {
        let options = ListContainersOptionsBuilder::new().all(true).filters(&of(provider)).build();
        let mut containers = Vec::new();
        for summary in self.0.list_containers(Some(options)).await? {
            let labels = summary.labels.unwrap_or_default();
            if labels.contains_key(LOOK) {
                continue;
            }
            let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
            let networks = summary.network_settings.and_then(|settings| settings.networks);
            containers.push(Container {
                id: summary.id.unwrap_or_default(),
                state: summary.state.map(|state| state.to_string()).unwrap_or_default(),
                lease: label("roadstead.lease").parse()?,
                service: label("roadstead.service"),
                ip: networks
                    .and_then(|networks| networks.into_values().next()?.ip_address?.parse().ok()),
            });
        }
        Ok(containers)
    }

    async fn container_ids(&self, provider: Address) -> anyhow::Result<Vec<String>> {
        let options = ListContainersOptionsBuilder::new().all(true).filters(&of(provider)).build();
        let containers = self.0.list_containers(Some(options)).await?;
        Ok(containers.into_iter().filter_map(|container| container.id).collect())
    }

    /// Leaves a container as a provider does that is killed while it reads a file of the image of the container `of`; its id.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn leave_look(&self, of: &str) -> anyhow::Result<String> {
        let found = self.inspect(of).await?;
        let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
        let owner = labels.into_iter().filter(|(name, _)| {
            ["roadstead.provider", "roadstead.market"].contains(&name.as_str())
        });
        let body = ContainerCreateBody {
            image: found.image,
            cmd: Some(vec!["-".into()]),
            labels: Some(owner.chain([(LOOK.to_owned(), "killed".to_owned())]).collect()),
            ..ContainerCreateBody::default()
        };
        Ok(self.0.create_container(None, body).await?.id)
    }

    /// All that a container is.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn inspect(&self, id: &str) -> anyhow::Result<ContainerInspectResponse> {
        Ok(self.0.inspect_container(id, None).await?)
    }

    /// What a program in a container writes.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn exec(&self, id: &str, command: &[&str]) -> anyhow::Result<String> {
        let options = CreateExecOptions {
            cmd: Some(command.to_vec()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::default()
        };
        let exec = self.0.create_exec(id, options).await?.id;
        let started = self.0.start_exec(&exec, None::<StartExecOptions>).await?;
        let StartExecResults::Attached { output, .. } = started else {
            anyhow::bail!("Docker gives no output of {command:?}");
        };
        let parts: Vec<String> = output.map_ok(|part| part.to_string()).try_collect().await?;
        Ok(parts.concat())
    }

    /// Kills a container.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&self, id: &str) -> anyhow::Result<()> {
        Ok(self.0.kill_container(id, None::<KillContainerOptions>).await?)
    }

    /// The ids of a provider's services in the swarm that the engine is a manager of.
    ///
    /// # Errors
    /// When it is none.
    pub async fn services(&self, provider: Address) -> anyhow::Result<Vec<String>> {
        let options = ListServicesOptionsBuilder::new().filters(&of(provider)).build();
        let services = self.0.list_services(Some(options)).await?;
        Ok(services.into_iter().filter_map(|service| service.id).collect())
    }

    /// The names of a provider's secrets in the swarm that the engine is a manager of.
    ///
    /// # Errors
    /// When it is none.
    pub async fn files(&self, provider: Address) -> anyhow::Result<Vec<String>> {
        let secrets = ListSecretsOptionsBuilder::new().filters(&of(provider)).build();
        let secrets = self.0.list_secrets(Some(secrets)).await?.into_iter();
        Ok(secrets.filter_map(|secret| secret.spec?.name).collect())
    }

    /// The names of all containers, networks and volumes of a provider.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn left(&self, provider: Address) -> anyhow::Result<Vec<String>> {
        let containers = self.container_ids(provider).await?;
        let mut left: Vec<String> =
            containers.into_iter().map(|id| format!("container {id}")).collect();
        left.extend(
            self.networks(provider).await?.into_iter().map(|name| format!("network {name}")),
        );
        left.extend(self.volumes(provider).await?.into_iter().map(|name| format!("volume {name}")));
        left.extend(
            self.decrypted(provider).await?.into_iter().map(|name| format!("image {name}")),
        );
        Ok(left)
    }

    /// The names of a provider's networks.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn networks(&self, provider: Address) -> anyhow::Result<Vec<String>> {
        let options = ListNetworksOptionsBuilder::new().filters(&of(provider)).build();
        let networks = self.0.list_networks(Some(options)).await?;
        Ok(networks.into_iter().filter_map(|network| network.name).collect())
    }

    /// The names of the images that a provider has decrypted.
    async fn decrypted(&self, provider: Address) -> anyhow::Result<Vec<String>> {
        let repository = format!("roadstead.invalid/{}/*/*", hex::encode(provider));
        let filters = HashMap::from([("reference".to_owned(), vec![repository])]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        let images = self.0.list_images(Some(options)).await?;
        Ok(images.into_iter().flat_map(|image| image.repo_tags).collect())
    }

    async fn volumes(&self, provider: Address) -> anyhow::Result<Vec<String>> {
        let options = ListVolumesOptionsBuilder::new().filters(&of(provider)).build();
        let volumes = self.0.list_volumes(Some(options)).await?.volumes.unwrap_or_default();
        Ok(volumes.into_iter().map(|volume| volume.name).collect())
    }

    /// Removes everything of a provider's.
    pub(crate) async fn clear(&self, provider: Address) -> anyhow::Result<()> {
        // A swarm makes anew what is only removed from one of its machines. Most engines are in none.
        for service in self.services(provider).await.unwrap_or_default() {
            gone(self.0.delete_service(&service).await)?;
        }
        for id in self.container_ids(provider).await? {
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            match self.0.remove_container(&id, Some(options)).await {
                // A swarm is at it.
                Err(DockerError::DockerResponseServerError { status_code: 409, .. }) => (),
                removed => gone(removed)?,
            }
        }
        let options = ListNetworksOptionsBuilder::new().filters(&of(provider)).build();
        for network in self.0.list_networks(Some(options)).await? {
            // A swarm's goes with the engines.
            if network.scope.as_deref() != Some("swarm") {
                gone(self.0.remove_network(&network.name.unwrap_or_default()).await)?;
            }
        }
        for image in self.decrypted(provider).await? {
            self.remove_image(&image).await?;
        }
        for volume in self.volumes(provider).await? {
            gone(self.0.remove_volume(&volume, None::<RemoveVolumeOptions>).await)?;
        }
        Ok(())
    }

    /// Runs a program in a container with no more around it than Docker cannot do without: it may do whatever the
    /// engine may. What it writes.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn unconfined(&self, image: &str, command: &[&str]) -> anyhow::Result<String> {
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            cmd: Some(command.iter().map(ToString::to_string).collect()),
            host_config: Some(HostConfig {
                cap_add: Some(vec!["SYS_ADMIN".into()]),
                security_opt: Some(vec!["seccomp=unconfined".into()]),
                pid_mode: Some("host".into()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let id = self.0.create_container(None, body).await?.id;
        let said = async {
            self.0.start_container(&id, None).await?;
            let options = LogsOptionsBuilder::new().stdout(true).stderr(true).follow(true).build();
            let said: Vec<_> = self.0.logs(&id, Some(options)).try_collect().await?;
            anyhow::Ok(said.iter().map(ToString::to_string).collect::<String>())
        };
        let said = said.await;
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        self.0.remove_container(&id, Some(options)).await?;
        said
    }

    /// Makes an image of a root file system, with what a line of a Dockerfile says, and returns its id.
    pub(crate) async fn import(&self, rootfs: Vec<u8>, line: &str) -> anyhow::Result<String> {
        let lines = Some(line).filter(|line| !line.is_empty()).map(str::to_owned);
        let options = CreateImageOptionsBuilder::new().from_src("-");
        let options = options.changes(lines.into_iter().collect()).build();
        let body = bollard::body_full(Bytes::from(rootfs));
        let steps: Vec<_> =
            self.0.create_image(Some(options), Some(body), None).try_collect().await?;
        let id = steps.into_iter().filter_map(|step| step.status).next_back();
        id.context("Docker gives the image no id")
    }

    /// The id of an image.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn image(&self, name: &str) -> anyhow::Result<String> {
        let image = self.0.inspect_image(name).await;
        let image = image.with_context(|| format!("image {name} is not there"))?;
        image.id.context("Docker gives the image no id")
    }

    /// Gives an image a name.
    pub(crate) async fn tag(&self, id: &str, repository: &str, tag: &str) -> anyhow::Result<()> {
        let options = TagImageOptionsBuilder::new().repo(repository).tag(tag).build();
        Ok(self.0.tag_image(id, Some(options)).await?)
    }

    /// Removes a name of an image, and the image with its last name.
    ///
    /// # Errors
    /// When the engine does not answer, or something uses the image.
    pub async fn remove_image(&self, name: &str) -> anyhow::Result<()> {
        match self.0.remove_image(name, None::<RemoveImageOptions>, None).await {
            Err(err) if !is_missing(&err) => Err(err.into()),
            _gone => Ok(()),
        }
    }

    /// Removes a container, whatever it does.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn remove_container(&self, id: &str) -> anyhow::Result<()> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        Ok(gone(self.0.remove_container(id, Some(options)).await)?)
    }

    /// An image as `docker save` writes it.
    pub(crate) async fn save(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let parts: Vec<Bytes> = self.0.export_image(name).try_collect().await?;
        Ok(parts.concat())
    }
}

fn of(provider: Address) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("roadstead.provider={provider}")])])
}

fn is_missing(err: &DockerError) -> bool {
    matches!(err, DockerError::DockerResponseServerError { status_code: 404, .. })
}

fn gone(result: Result<(), DockerError>) -> Result<(), DockerError> {
    match result {
        Err(err) if is_missing(&err) => Ok(()),
        result => result,
    }
}
