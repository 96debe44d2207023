"""The files under `deploy`: each by the tool that will read it, and all of them by each other."""

import json
import re
import sys
from pathlib import Path

import httpx
import pytest
import yaml
from grpc_reflection.v1alpha import reflection

from service.settings import Settings
from service.transport.grpc import messages
from service.transport.grpc.service import NAME
from service.transport.grpc.stream import NAME as STREAM
from tests.integration.deployment import (
    BALANCER_CONFIG,
    COMPOSE,
    DEPLOY,
    GRPC_CONFIG,
    KUSTOMIZATIONS,
    OF_THE_SERVICE,
    REPLICAS,
    ROOT,
    SERVICES,
    check,
    containers_of,
    find_tool,
    needs,
    render,
)
from tests.integration.live_server import live_server

PROMETHEUS = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
ALERTS = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/lstm-service.json").read_text())
SCRIPTS = Path(sys.executable).parent


@pytest.fixture(params=KUSTOMIZATIONS, ids=lambda directory: directory.name)
def documents(request):
    """The documents of each kustomization."""
    return render(request.param)


# ------------------------------------------------------------------------------ by their own tools


@needs("haproxy", "haproxy")
@pytest.mark.parametrize(
    "files", [[BALANCER_CONFIG], [BALANCER_CONFIG, GRPC_CONFIG]], ids=["http", "http-and-grpc"]
)
def test_haproxy_accepts_its_configuration(files):
    """As it is shipped, also on a machine that cannot resolve the replicas' names."""
    arguments = [argument for file in files for argument in ("-f", str(file))]

    check(find_tool("haproxy"), "-c", "-q", *arguments)


@needs("promtool", "prometheus")
def test_prometheus_accepts_its_configuration_and_rules():
    """And those of its rules that its linter knows to be mistakes."""
    said = check(find_tool("promtool"), "check", "config", str(DEPLOY / "prometheus.yml"))

    assert f"{sum(len(group['rules']) for group in ALERTS['groups'])} rules found" in said


ALERT_TEST = """
rule_files: [{rules}]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - series: up{{job="lstm-service", instance="a"}}
        values: 1x20
      - series: up{{job="lstm-service", instance="b"}}
        values: 0x20
      - series: up{{job="balancer", instance="c"}}
        values: 0x20
      - series: lstm_ready{{job="lstm-service", instance="a", model="m"}}
        values: 0x20
      - series: lstm_store_ready{{job="lstm-service", instance="a"}}
        values: 0x20
      - series: lstm_internal_errors_total{{job="lstm-service", instance="a", model="m"}}
        values: 0x10 1x10
    promql_expr_test:
      - expr: count by (alertname) (ALERTS{{alertstate="firing"}})
        eval_time: 4m
        exp_samples:
          - {{labels: '{{alertname="BalancerDown"}}', value: 1}}
          - {{labels: '{{alertname="InternalErrors"}}', value: 1}}
          - {{labels: '{{alertname="NoReplicaReady"}}', value: 1}}
          - {{labels: '{{alertname="ReplicaDown"}}', value: 1}}
          - {{labels: '{{alertname="StoreNotReady"}}', value: 1}}
"""


@needs("promtool", "prometheus")
def test_the_alerts_fire(tmp_path):
    """A lost balancer or replica, a fault, nobody ready and a lost store; and nothing else."""
    test = tmp_path / "test.yml"
    test.write_text(ALERT_TEST.format(rules=DEPLOY / "alerts.yml"))

    check(find_tool("promtool"), "test", "rules", str(test))


def test_the_compose_files_are_such():
    """By the schema of the Compose specification, as check-jsonschema carries it."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]

    check(*command, *map(str, DEPLOY.glob("compose*.yaml")))


@pytest.mark.parametrize("version", ["1.25.0", "1.37.0"])
def test_kubernetes_accepts_its_manifests(documents, version, tmp_path):
    """By the API's own schemas, unknown fields refused, of the oldest and the newest at hand."""
    rendered = tmp_path / "rendered.yaml"
    rendered.write_text(yaml.safe_dump_all(documents))

    check(str(SCRIPTS / "kubernetes-validate"), "--strict", "-k", version, str(rendered))


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.y*ml")), ids=lambda path: path.name)
def test_every_yaml_file_parses(path):
    """Also those that only a running system reads."""
    assert all(yaml.safe_load_all(path.read_text()))


# -------------------------------------------------------------------------------- by what they name


def metrics_in(expression):
    """Return the names of the metrics in a PromQL expression, which all have a selector here."""
    return set(re.findall(r"([A-Za-z_:][A-Za-z0-9_:]*)\{", expression))


def expressions():
    """Return every PromQL expression of dashboard and alerts."""
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    variables = [variable["query"]["query"] for variable in DASHBOARD["templating"]["list"]]
    alerts = [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]
    return panels + variables + alerts


def test_every_metric_that_is_shown_is_told(monkeypatch):
    """No panel or alert waits for a metric that the service has not."""
    # The mode that has the most to tell.
    monkeypatch.setenv("LSTM_DURABILITY", "async")
    with live_server() as server:
        httpx.get(f"{server.url}/v1/models")
        told = set(re.findall(r"(?m)^([a-z_]+)[{ ]", httpx.get(f"{server.url}/metrics").text))
    asked = set().union(*map(metrics_in, expressions())) - {"up"}

    assert set() == asked - told


def test_nginx_passes_on_every_call_of_grpc_but_those_that_change_one_pod():
    """It knows paths only, so each call is named."""
    path = DEPLOY / "kubernetes/ingress-nginx/grpc-ingress.yaml"
    [rule] = yaml.safe_load(path.read_text())["spec"]["rules"]
    passed = {each["path"]: each["pathType"] for each in rule["http"]["paths"]}
    names = messages.DESCRIPTOR.message_types_by_name
    calls = {STREAM, *(name[: -len("Request")] for name in names if name.endswith("Request"))}
    calls -= {"RepositoryModelLoad", "RepositoryModelUnload"}
    services = ["grpc.health.v1.Health", reflection.SERVICE_NAME]
    assert passed == {f"/{NAME}/{call}": "Exact" for call in calls} | {
        f"/{service}": "Prefix" for service in services
    }


def test_every_expression_selects():
    """By job and by what it is about, so that another service's metrics are never shown."""
    assert [] == [
        expression
        for expression in expressions()
        if not set(re.findall(r'job="([^"]*)"', expression)) & {"lstm-service", "balancer"}
    ]
    assert [] == [expression for expression in expressions() if not metrics_in(expression)]


def test_the_dashboard_is_provisioned():
    """It lies where Grafana looks, and asks the data source that there is."""
    sources = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text()
    )
    providers = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/dashboards/dashboards.yaml").read_text()
    )
    mounts = [volume["target"] for volume in SERVICES["grafana"]["volumes"]]

    assert {sources["datasources"][0]["uid"]} == {
        target["datasource"]["uid"] for panel in DASHBOARD["panels"] for target in panel["targets"]
    }
    assert providers["providers"][0]["options"]["path"] in mounts
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def settings_of_compose():
    """Return what compose sets in the environment of this repository's image."""
    return [SERVICES[name]["environment"] for name in OF_THE_SERVICE]


def settings_of_kubernetes():
    """Return what the manifests set; values from Secrets are empty."""
    generated = [
        dict(literal.split("=", 1) for literal in generator["literals"])
        for directory in KUSTOMIZATIONS
        for generator in yaml.safe_load((directory / "kustomization.yaml").read_text()).get(
            "configMapGenerator", []
        )
    ]
    given = [
        {variable["name"]: "" for variable in container.get("env", [])}
        for directory in KUSTOMIZATIONS
        for document in render(directory)
        for container in containers_of(document)
    ]
    return generated + given


def settings_of_the_image():
    """Return what the Dockerfile sets for the service."""
    return [dict(re.findall(r"(LSTM_\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))]


def test_every_variable_is_a_setting():
    """And has a value that the service starts with."""
    environments = settings_of_compose() + settings_of_kubernetes() + settings_of_the_image()
    names = {name for environment in environments for name in environment}
    settings = {name.removeprefix("LSTM_").lower() for name in names if name.startswith("LSTM_")}

    assert {"LSTM_HOST", "LSTM_PORT", "LSTM_STORE"} <= names
    assert set() == {name for name in names if not name.startswith("LSTM_")}
    assert set() == settings - set(Settings.model_fields)
    for environment in environments:
        values = {name.removeprefix("LSTM_").lower(): value for name, value in environment.items()}
        Settings(**{n: v for n, v in values.items() if n in Settings.model_fields and v})


def test_the_services_find_each_other():
    """What HAProxy, Prometheus and Grafana connect to are services of the compose file."""
    servers = {
        name
        for config in (BALANCER_CONFIG, GRPC_CONFIG)
        for name in re.findall(r"(?m)^ +server \S+ (\S+):", config.read_text())
    }
    targets = {
        target.split(":")[0]
        for job in PROMETHEUS["scrape_configs"]
        for configs in job["static_configs"]
        for target in configs["targets"]
    }

    assert set(REPLICAS) == servers
    assert {*REPLICAS, "balancer"} == targets
    assert set(REPLICAS) | targets <= set(SERVICES)
    for name, service in SERVICES.items():
        assert set(service["networks"]) <= set(COMPOSE["networks"]), name
        for volume in service.get("volumes", []):
            source = volume["source"]
            if volume["type"] == "volume":
                assert source in COMPOSE["volumes"], (name, source)
                continue
            assert (DEPLOY / source).exists(), (name, source)
            assert volume["read_only"], (name, source)
            assert {"create_host_path": False} == volume["bind"], (name, source)


@pytest.mark.parametrize(
    ("config", "name", "setting"),
    [(BALANCER_CONFIG, "http", "LSTM_PORT"), (GRPC_CONFIG, "grpc", "LSTM_GRPC_PORT")],
    ids=["http", "grpc"],
)
def test_the_balancer_listens_where_it_is_published(config, name, setting):
    """It is given the configuration, and asks the replicas where they are told to serve."""
    [section] = re.findall(rf"(?ms)^frontend {name}\n(.*?)^\S+end", config.read_text())
    binds = set(re.findall(r"(?m)^ +bind :(\d+)", section))
    servers = set(re.findall(r"(?m)^ +server \S+ \S+:(\d+)", config.read_text()))
    balancer = SERVICES["balancer"]
    mounts = {volume["source"]: volume["target"] for volume in balancer["volumes"]}

    assert mounts[f"./{config.name}"] in balancer["command"]
    [port] = binds
    assert f"${{PUBLISH_ADDRESS:-127.0.0.1}}:{port}:{port}" in balancer["ports"]
    for replica in REPLICAS:
        assert {SERVICES[replica]["environment"][setting]} == servers
        assert servers <= set(SERVICES[replica]["expose"])


@pytest.mark.parametrize(("name", "setting"), [("http", "LSTM_PORT"), ("grpc", "LSTM_GRPC_PORT")])
def test_kubernetes_finds_the_ports(name, setting):
    """Setting, container, Service and network policy mean the same one."""
    base = render(DEPLOY / "kubernetes/base")
    by_kind = {document["kind"]: document["spec"] for document in base if "spec" in document}
    [container] = by_kind["Deployment"]["template"]["spec"]["containers"]
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    targets = {port["name"]: port["targetPort"] for port in by_kind["Service"]["ports"]}
    [allowed] = by_kind["NetworkPolicy"]["ingress"]

    assert settings_of_kubernetes()[0][setting] == ports[name]
    assert name == targets[name]
    assert name in {port["port"] for port in allowed["ports"]}


def test_tls_is_where_the_balancer_looks():
    """The file that compose mounts is the one that the configuration names."""
    [given] = yaml.safe_load((DEPLOY / "compose-tls.yaml").read_text())["services"].values()
    [volume] = given["volumes"]

    assert given["environment"]["TLS_PEM"] == volume["target"]
    assert (True, {"create_host_path": False}) == (volume["read_only"], volume["bind"])
    for config in (BALANCER_CONFIG, GRPC_CONFIG):
        assert 'crt "$TLS_PEM"' in config.read_text()
