"""The Helm chart and the add-on of `deploy`: what helm makes of them, on the real API server too.

The chart has to say what the manifests beside it say; tests/test_deploy.py and
tests/test_admission.py hold those.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_harvester_stuck import __version__
from kubectl_harvester_stuck.checks.prometheus_rules import RULES
from tests.components.controlplane.server import ControlPlane
from tests.components.helm import build as helm_build
from tests.components.promtool import build as promtool_build
from tests.support import fastyaml
from tests.support.resources import RESOURCES
from tests.support.world import World
from tests.test_prometheus import rendered, samples, target

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "chart"
NAMESPACE = "harvester-system"
IMAGE = "registry.internal/harvester-stuck:test"
COMMANDS = re.findall(r"^\$ (helm .*)$", (DEPLOY / "README.md").read_text(), re.M)
Body = dict[str, Any]
Name = tuple[str, str, str]
"""The kind, the namespace and the name of an object."""
Objects = dict[Name, Body]

HELMS_OWN = ("app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart")
SHOWN = ("Deployment", "Service", "ServiceMonitor")


def named(items: Iterable[Body]) -> Objects:
    """The objects by their names; helm's own labels are left out, everything else is in."""
    found: Objects = {}
    for item in filter(None, items):
        meta = item["metadata"]
        for label in HELMS_OWN:
            meta.get("labels", {}).pop(label, None)
        if not meta.get("labels", True):
            del meta["labels"]
        name = (item["kind"], meta.get("namespace", ""), meta["name"])
        assert name not in found
        found[name] = item
    return found


def manifest(file: str) -> Objects:
    """What a manifest of `deploy` has, with the image that the tests set."""
    text = (DEPLOY / file).read_text()
    text = text.replace("registry.example.com/kubectl-harvester-stuck:0.1.0", IMAGE)
    return named(fastyaml.load_all(text))


USERS, POLICIES, EXPORTER = map(manifest, ("rbac.yaml", "admission.yaml", "metrics.yaml"))
MONITOR: Name = ("ServiceMonitor", NAMESPACE, "harvester-stuck-metrics")
ALERTS: Name = ("PrometheusRule", NAMESPACE, "harvester-stuck-metrics")
CLUSTER_ALERTS: Name = ("PrometheusRule", NAMESPACE, "harvester-stuck-cluster")
DASHBOARD: Name = ("ConfigMap", "cattle-dashboards", "harvester-stuck-dashboard")
EVERYTHING = {*USERS, *POLICIES, *EXPORTER, ALERTS, CLUSTER_ALERTS, DASHBOARD}
SWITCHES: dict[str, set[Name]] = {
    "rbac.create": set(USERS),
    "policies.enabled": set(POLICIES),
    "exporter.enabled": {*EXPORTER, MONITOR, ALERTS, DASHBOARD},
    "serviceMonitor.enabled": {MONITOR},
    "alerts.enabled": {ALERTS},
    "alerts.cluster": {CLUSTER_ALERTS},
    "dashboard.enabled": {DASHBOARD},
}
"""What goes with each."""


@pytest.fixture(scope="module")
def promtool() -> Path:
    """promtool; built first where it is not in the cache."""
    return promtool_build.programs() / "promtool"


class Helm:
    """helm, with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.program = helm_build.programs() / "helm"
        self.environ = {"HOME": str(home), "PATH": os.environ["PATH"]}

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, *words],
            cwd=ROOT,
            env=self.environ,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def refusal(self, *words: str) -> str:
        """Why `helm template` makes nothing of the chart."""
        done = self.run("template", "harvester-stuck", "deploy/chart", "-n", NAMESPACE, *words)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr

    def text(self, *words: str, chart: Path = CHART, release: str = "harvester-stuck") -> str:
        image = ("--set", f"image={IMAGE}")
        done = self.run("template", release, str(chart), "-n", NAMESPACE, *image, *words)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def objects(self, *words: str, **more: Any) -> Objects:
        """What the chart makes."""
        return named(fastyaml.load_all(self.text(*words, **more)))


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """helm; built first where it is not in the cache."""
    return Helm(tmp_path_factory.mktemp("helm"))


def settings(*values: str) -> list[str]:
    """Words that set values."""
    return [word for value in values for word in ("--set", value)]


# What helm makes of it


@pytest.mark.parametrize(
    "words", [(), *((f"{switch}=false",) for switch in SWITCHES), ("namespace=shop",)]
)
def test_helm_finds_nothing_wrong(helm: Helm, words: tuple[str, ...]) -> None:
    done = helm.run("lint", "--strict", "deploy/chart", *settings(f"image={IMAGE}", *words))
    assert done.returncode == 0, done.stdout
    assert "0 chart(s) failed" in done.stdout
    assert not re.search(r"\[(WARNING|ERROR)\]", done.stdout + done.stderr), done.stdout


def test_it_says_what_the_manifests_say(helm: Helm) -> None:
    made = helm.objects()
    assert set(made) == EVERYTHING
    for name, item in {**USERS, **POLICIES, **EXPORTER}.items():
        assert made[name] == item, name
    assert made[CLUSTER_ALERTS]["spec"] == RULES["spec"]
    assert made[ALERTS]["spec"] == fastyaml.load((CHART / "files" / "alerts.yaml").read_text())
    (content,) = made[DASHBOARD]["data"].values()
    assert json.loads(content) == dashboard()
    assert made[DASHBOARD]["metadata"]["labels"] == {"grafana_dashboard": "1"}


def test_each_switch_takes_its_own_away_and_nothing_else(helm: Helm) -> None:
    whole = helm.objects()
    for states in itertools.product((True, False), repeat=len(SWITCHES)):
        chosen = dict(zip(SWITCHES, states, strict=True))
        off = [SWITCHES[switch] for switch, on in chosen.items() if not on]
        left = EVERYTHING.difference(*off)
        made = helm.objects(*settings(*(f"{key}={str(on).lower()}" for key, on in chosen.items())))
        assert made == {name: whole[name] for name in left}, chosen


def test_what_is_made_says_that_helm_keeps_it(helm: Helm) -> None:
    """All but the copies, which are what `kubectl apply` would make of the files."""
    labels = {
        "app.kubernetes.io/managed-by": "Helm",
        "app.kubernetes.io/version": __version__,
        "helm.sh/chart": f"harvester-stuck-{__version__}",
    }
    for item in fastyaml.load_all(helm.text()):
        if item and not ({*USERS, *POLICIES} & {*named([json.loads(json.dumps(item))])}):
            assert item["metadata"]["labels"].items() >= labels.items(), item["metadata"]["name"]


def change(made: Objects, whole: Objects) -> Objects:
    """What is not as it is without the value."""
    assert set(made) == set(whole)
    return {name: item for name, item in made.items() if item != whole[name]}


def test_the_policies_can_warn_instead(helm: Helm) -> None:
    made = change(helm.objects("--set", "policies.actions={Warn,Audit}"), helm.objects())
    kind = "ValidatingAdmissionPolicyBinding"
    assert set(made) == {name for name in POLICIES if name[0] == kind}
    for name, item in made.items():
        spec = {**POLICIES[name]["spec"], "validationActions": ["Warn", "Audit"]}
        assert item == {**POLICIES[name], "spec": spec}


def test_the_exporter_can_be_limited_to_a_namespace(helm: Helm) -> None:
    whole, made = helm.objects(), helm.objects("--set", "namespace=shop")
    account = "harvester-stuck-metrics"
    gone, come = set(whole) - set(made), set(made) - set(whole)
    assert gone == {("ClusterRole", "", account), ("ClusterRoleBinding", "", account)}
    assert come == {("Role", "shop", account), ("RoleBinding", "shop", account)}
    role, binding = made["Role", "shop", account], made["RoleBinding", "shop", account]
    assert role["rules"] == whole["ClusterRole", "", account]["rules"]
    assert binding["subjects"] == whole["ClusterRoleBinding", "", account]["subjects"]
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == ("Role", account)
    same = set(whole) & set(made)
    changed = {name for name in same if made[name] != whole[name]}
    exporter = ("Deployment", NAMESPACE, account)
    assert changed == {exporter}
    words = [container(item[exporter])["command"] for item in (whole, made)]
    assert words[0][2:3] == ["-A"]
    assert words[1] == [*words[0][:2], "-n", "shop", *words[0][3:]]


def container(deployment: Body) -> Body:
    """The only one of its pod."""
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    found: Body = only
    return found


def test_what_else_can_be_set_changes_that_alone(helm: Helm) -> None:
    whole = helm.objects()
    exporter: Name = ("Deployment", NAMESPACE, "harvester-stuck-metrics")

    def changed(*values: str) -> Objects:
        return change(helm.objects(*settings(*values)), whole)

    made = changed("imagePullPolicy=Always", "imagePullSecrets[0].name=registry",
                   "exporter.resources.limits.memory=1Gi")  # fmt: skip
    assert set(made) == {exporter}
    assert container(made[exporter])["imagePullPolicy"] == "Always"
    assert container(made[exporter])["resources"]["limits"]["memory"] == "1Gi"
    pod = made[exporter]["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    made = changed("serviceMonitor.interval=30s", "serviceMonitor.labels.release=x")
    assert set(made) == {MONITOR}
    assert made[MONITOR]["spec"]["endpoints"][0]["interval"] == "30s"
    assert made[MONITOR]["metadata"]["labels"] == {"release": "x"}
    made = changed("alerts.labels.release=x")
    assert set(made) == {ALERTS, CLUSTER_ALERTS}
    assert all(item["metadata"]["labels"] == {"release": "x"} for item in made.values())
    made = changed("dashboard.labels.folder=x")
    assert made[DASHBOARD]["metadata"]["labels"] == {"grafana_dashboard": "1", "folder": "x"}
    elsewhere = set(helm.objects("--set", "dashboard.namespace=grafana")) - set(whole)
    assert elsewhere == {("ConfigMap", "grafana", "harvester-stuck-dashboard")}


def test_two_releases_have_nothing_of_the_exporter_in_common(helm: Helm) -> None:
    words = settings("rbac.create=false", "policies.enabled=false")
    shops = helm.objects(*words, "--set", "namespace=shop", release="shop")
    labs = helm.objects(*words, "--set", "namespace=lab", release="lab")
    assert len(shops) == len(labs) > 0
    assert not set(shops) & set(labs)
    assert selected(shops) != selected(labs)


def selected(made: Objects) -> Body:
    """The labels by which the parts of one exporter find each other."""
    (deployment,) = (item for name, item in made.items() if name[0] == "Deployment")
    (service,) = (item for name, item in made.items() if name[0] == "Service")
    (monitor,) = (item for name, item in made.items() if name[0] == "ServiceMonitor")
    labels: Body = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"] == {"matchLabels": labels}
    assert service["spec"]["selector"] == labels
    assert monitor["spec"]["selector"] == {"matchLabels": labels}
    assert service["metadata"]["labels"].items() >= labels.items()
    return labels


def test_the_parts_of_the_exporter_find_each_other() -> None:
    selected(EXPORTER)
    (port,) = EXPORTER["Service", NAMESPACE, "harvester-stuck-metrics"]["spec"]["ports"]
    (endpoint,) = EXPORTER[MONITOR]["spec"]["endpoints"]
    runs = container(EXPORTER["Deployment", NAMESPACE, "harvester-stuck-metrics"])
    (opened,) = runs["ports"]
    assert endpoint["port"] == port["name"]
    assert port["targetPort"] == opened["name"]
    assert runs["command"][-1] == f"0.0.0.0:{opened['containerPort']}"
    for probe in ("livenessProbe", "readinessProbe"):
        assert runs[probe]["httpGet"] == {"path": "/metrics", "port": opened["name"]}
    # Else the namespace of a VM would be read as `exported_namespace`.
    assert endpoint["honorLabels"] is True


def test_an_image_is_needed_where_there_is_an_exporter(helm: Helm) -> None:
    assert "image is needed: none has been published yet" in helm.refusal()
    done = helm.run("template", "x", "deploy/chart", "--set", "exporter.enabled=false")
    assert done.returncode == 0, done.stderr


def test_the_policies_are_not_left_out_in_silence(helm: Helm) -> None:
    older = ("--kube-version", "1.29.15+rke2r1", "--set", f"image={IMAGE}")
    assert "the admission policies need Kubernetes 1.30 (Harvester 1.5)" in helm.refusal(*older)
    assert not set(helm.objects(*older, "--set", "policies.enabled=false")) & set(POLICIES)
    assert set(helm.objects("--kube-version", "1.30.0")) == EVERYTHING
    assert "incompatible with Kubernetes v1.28" in helm.refusal("--kube-version", "1.28.15")


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ("policy.enabled=true", "policy"),
        ("policies.action={Warn}", "action"),
        ("policies.actions={Allow}", "/policies/actions/0"),
        ("policies.actions={Deny,Warn}", "/policies/actions"),
        ("policies.actions=", "/policies/actions"),
        ("policies.enabled=no", "/policies/enabled"),
        ("rbac.created=false", "created"),
        ("exporter.replicas=2", "replicas"),
        ("namespace=Shop", "/namespace"),
        ("imagePullPolicy=Sometimes", "/imagePullPolicy"),
        ("imagePullSecrets={registry}", "/imagePullSecrets/0"),
        ("serviceMonitor.interval=soon", "/serviceMonitor/interval"),
        ("serviceMonitor.label=x", "label"),
        ("alerts.nodes=true", "nodes"),
        ("dashboard.namespace=", "/dashboard/namespace"),
        ("dashboard.folder=x", "folder"),
    ],
)
def test_a_value_that_is_wrong_or_unknown_is_refused(helm: Helm, value: str, where: str) -> None:
    told = helm.refusal("--set", f"image={IMAGE}", "--set", value)
    assert "values don't meet the specifications of the schema" in told
    assert where in told


def test_the_schema_knows_every_value_and_no_other() -> None:
    values = fastyaml.load((CHART / "values.yaml").read_text())
    known = json.loads((CHART / "values.schema.json").read_text())["properties"]
    assert set(known) - {"global"} == set(values)
    for name, value in values.items():
        if isinstance(value, dict):
            assert set(known[name]["properties"]) == set(value), name


def test_the_readme_shows_values_as_they_are() -> None:
    values = fastyaml.load((CHART / "values.yaml").read_text())
    table = (DEPLOY / "README.md").read_text().partition("| value | default | what |")[2]
    rows = re.findall(r"^\| `([\w.]+)` \| (?:`(.*?)`)? ?\| ", table.partition("\n\n")[0], re.M)
    assert len(rows) >= len(SWITCHES)
    assert {name for name, _ in rows} >= set(SWITCHES)
    for name, default in rows:
        value: Any = values
        for key in name.split("."):
            value = value[key]
        assert fastyaml.load(default or '""') == value, name


# The package, and the add-on


def test_the_packed_chart_makes_the_same(helm: Helm, tmp_path: Path) -> None:
    done = helm.run("package", "deploy/chart", "-d", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (packed,) = tmp_path.iterdir()
    assert packed.name == f"harvester-stuck-{__version__}.tgz"
    assert helm.objects(chart=packed) == helm.objects()


def test_the_addon_installs_the_chart(helm: Helm, tmp_path: Path) -> None:
    (addon,) = fastyaml.load_all((DEPLOY / "addon.yaml").read_text())
    chart = fastyaml.load((CHART / "Chart.yaml").read_text())
    # All that Harvester's kind has, each of which it wants.
    spec = {"chart": str, "enabled": bool, "repo": str, "valuesContent": str, "version": str}
    assert {name: type(value) for name, value in addon["spec"].items()} == spec
    assert (addon["spec"]["chart"], addon["spec"]["version"]) == (chart["name"], chart["version"])
    assert chart["version"] == chart["appVersion"] == __version__
    assert addon["spec"]["enabled"] is False
    path = tmp_path / "values.yaml"
    path.write_text(addon["spec"]["valuesContent"])
    done = helm.run("template", addon["metadata"]["name"], "deploy/chart", "-f", str(path),
                    "-n", addon["metadata"]["namespace"])  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(named(fastyaml.load_all(done.stdout))) == EVERYTHING


# On the API server


@pytest.fixture
def place(control_plane: ControlPlane, tmp_path: Path) -> Iterator[World]:
    """The namespaces that Harvester has, and one with a VM that lives."""
    world = World(control_plane, tmp_path, "charted", "charted-dead", "charted-live")
    for name in (NAMESPACE, "longhorn-system", "cattle-dashboards", "other"):
        control_plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    world.vm("web-1")
    yield world
    control_plane.wipe(world.namespace)


@pytest.fixture
def shell(place: World, kubectl: Path, helm: Helm) -> Callable[[str], str]:
    """Runs a command as it would be pasted at the top of the checkout."""
    path = f"{kubectl.parent}:{helm.program.parent}:{os.environ['PATH']}"
    environ = {**place.environ(), **helm.environ, "IMAGE": IMAGE, "PATH": path}

    def run(command: str) -> str:
        done = subprocess.run(
            ["sh", "-ec", command], cwd=ROOT, env=environ, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    return run


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("namespace=charted",),
        ("policies.actions={Warn,Audit}",),
        ("policies.actions={Deny,Audit}",),
    ],
)
def test_the_server_takes_every_object_field_by_field(
    helm: Helm, shell: Callable[[str], str], tmp_path: Path, words: tuple[str, ...]
) -> None:
    path = tmp_path / "made.yaml"
    path.write_text(helm.text(*settings(*words)))
    told = shell(f"kubectl apply --dry-run=server --validate=strict -f {path}")
    lines = told.splitlines()
    assert len(lines) == len(EVERYTHING)
    assert all(line.endswith(" created (server dry run)") for line in lines), told


def until(done: Callable[[], bool]) -> None:
    """Ask until it is so; policies need a moment to be in force, or not to be any more."""
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def present(api: ControlPlane, names: Iterable[Name]) -> set[Name]:
    """Which of the objects the server has."""
    found = set()
    for name in names:
        kind, namespace, own = name
        core = "/apis/apps/v1" if kind == "Deployment" else "/api/v1"
        if kind in RESOURCES and kind != "Deployment":
            path = RESOURCES[kind].path(namespace or None, own)
        else:
            path = f"{core}/namespaces/{namespace}/{kind.lower()}s/{own}"
        status, answer = api.request("GET", path)
        assert status in (200, 404), (path, answer)
        found |= {name} if status == 200 else set()
    return found


def test_the_commands_of_the_readme_install_upgrade_and_uninstall(
    control_plane: ControlPlane, place: World, shell: Callable[[str], str]
) -> None:
    install, upgrade, uninstall = COMMANDS
    abuse = "kubectl label vm web-1 -n charted --as jane tier=web --dry-run=server 2>&1 || true"
    told = "may only patch what is being deleted"
    assert present(control_plane, EVERYTHING) == set()
    try:
        assert "The admission policies are enforced." in shell(install)
        assert present(control_plane, EVERYTHING) == EVERYTHING
        operator = "--clusterrole=harvester-stuck-operator --user=jane"
        shell(f"kubectl create clusterrolebinding jane {operator}")
        until(lambda: "(Forbidden)" in (said := shell(abuse)) and told in said)
        checked = place.run("check", "-A", "-o", "wide").out
        assert re.search(r"^OK +admission-policies: ", checked, re.M), checked
        assert "policies reject nothing: policies.actions is Warn, Audit." in shell(upgrade)
        until(lambda: "Warning: " in (said := shell(abuse)) and told in said and "labeled" in said)
        assert present(control_plane, EVERYTHING) == EVERYTHING
    finally:
        shell("kubectl delete clusterrolebinding jane --ignore-not-found")
        shell(uninstall)
    assert present(control_plane, EVERYTHING) == set()


def test_an_exporter_of_one_namespace_reads_no_other(
    control_plane: ControlPlane, shell: Callable[[str], str]
) -> None:
    account = f"system:serviceaccount:{NAMESPACE}:shop-metrics"

    def may(verb: str, resource: str, namespace: str, group: str = "kubevirt.io") -> bool:
        asked = {"verb": verb, "resource": resource, "namespace": namespace, "group": group}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": account, "resourceAttributes": asked},
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        status, answer = control_plane.request("POST", path, review)
        assert status == 201, answer
        return bool(answer["status"]["allowed"])

    values = "image=$IMAGE,rbac.create=false,policies.enabled=false,namespace=charted"
    shell(f"helm install shop deploy/chart -n {NAMESPACE} --set {values}")
    try:
        until(lambda: may("list", "virtualmachines", "charted"))
        until(lambda: may("list", "nodes", "", ""))
        assert may("watch", "pods", "charted", "")
        for namespace in ("other", ""):
            for resource, group in (("virtualmachines", "kubevirt.io"), ("pods", "")):
                assert not may("list", resource, namespace, group)
    finally:
        shell(f"helm uninstall shop -n {NAMESPACE}")


# Alerts and dashboard, by Prometheus's own evaluation

VM = 'kind="VirtualMachine"'


def dashboard() -> Body:
    """The dashboard as it is in the chart."""
    found: Body = json.loads((CHART / "files" / "dashboard.json").read_text())
    return found


def expressions(namespace: str = ".*") -> dict[str, str]:
    """What each panel asks Prometheus, with the variables as Grafana fills them in."""
    found = {}
    for panel in dashboard()["panels"]:
        (one,) = panel["targets"]
        found[panel["title"]] = one["expr"].replace("$namespace", namespace)
    assert not any("$" in expr for expr in found.values())
    return found


def test_prometheus_takes_every_expression(promtool: Path, tmp_path: Path) -> None:
    asked = expressions()
    rules = [
        {"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(asked.values())
    ]
    made = fastyaml.load((CHART / "files" / "alerts.yaml").read_text())
    made["groups"].append({"name": "dashboard", "rules": rules})
    path = tmp_path / "rules.yaml"
    path.write_text(fastyaml.dump(made))
    done = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"SUCCESS: {len(asked) + 4} rules found" in done.stdout


def test_only_metrics_and_labels_that_exist_are_asked_for() -> None:
    exported = samples(rendered(target("shop", "web")))
    metrics = {name for name, _ in exported}
    labels = {label for _, pairs in exported for label, _ in pairs}
    alerts = fastyaml.load((CHART / "files" / "alerts.yaml").read_text())["groups"][0]["rules"]
    variable = dashboard()["templating"]["list"][1]["query"]["query"]
    asked = [*expressions().values(), variable, *(alert["expr"] for alert in alerts)]
    words = {word for expr in asked for word in re.findall(r"\bharvester_\w+", expr)}
    assert words == metrics
    grouped = {
        label
        for expr in asked
        for several in re.findall(r"by \((.*?)\)|\{(\w+)=", expr)
        for part in several
        for label in part.split(", ")
        if label
    }
    assert grouped == labels
    told = {word for alert in alerts for text in alert["annotations"].values()
            for word in re.findall(r"\$labels\.(\w+)", text)}  # fmt: skip
    assert told == labels


def promtool_tests(promtool: Path, directory: Path, *tests: Body) -> None:
    """Have Prometheus evaluate it all over made-up series."""
    path = directory / "tests.yaml"
    alerts = str(CHART / "files" / "alerts.yaml")
    path.write_text(
        fastyaml.dump(
            {"rule_files": [alerts], "evaluation_interval": "1m",
             "tests": [{"interval": "1m", **test} for test in tests]}
        )
    )  # fmt: skip
    done = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def series(**values: str) -> list[Body]:
    """Series of the exporter, which lists every minute; the word says what of."""
    names = {
        "complete": "harvester_stuck_list_complete",
        "read": "harvester_stuck_list_timestamp_seconds",
        "web": f'harvester_stuck_seconds{{namespace="shop",{VM},name="web",state="Stopping"}}',
        "db": f'harvester_stuck_seconds{{namespace="lab",{VM},name="db",state="NotReady"}}',
        "shop": f'harvester_stuck_objects{{namespace="shop",{VM},state="Stopping"}}',
        "lab": f'harvester_stuck_objects{{namespace="lab",{VM},state="NotReady"}}',
    }
    return [{"series": names[name], "values": value} for name, value in values.items()]


def fires(alert: str, at: str, *labels: Body, says: str = "") -> Body:
    expected = [
        {"exp_labels": {"severity": "warning", **one}, "exp_annotations": {"summary": says}}
        for one in labels
    ]
    return {"eval_time": at, "alertname": alert, "exp_alerts": expected}


WEB = {"namespace": "shop", "kind": "VirtualMachine", "name": "web", "state": "Stopping"}
LONG = "VirtualMachine shop/web has been Stopping for more than ten minutes"
SHOP = {key: value for key, value in WEB.items() if key != "name"}
SINCE_UNKNOWN = (
    "a VirtualMachine in shop has been Stopping for fifteen minutes at least;"
    " since when is not known"
)
UNKNOWN = "it is not known which VMs are stuck"
OLD = "the list of what is stuck is more than fifteen minutes old"


def test_the_alerts_fire_when_they_should_and_not_before(promtool: Path, tmp_path: Path) -> None:
    well = {"complete": "1x60", "read": "0+60x60"}
    names = ("HarvesterVMStuck", "HarvesterVMStuckSinceUnknown", "HarvesterStuckUnknown",
             "HarvesterStuckOld")  # fmt: skip
    quiet = [fires(name, at) for name in names for at in ("0m", "30m", "60m")]
    promtool_tests(
        promtool,
        tmp_path,
        {"input_series": series(**well), "alert_rule_test": quiet},
        {
            "input_series": series(**well, web="0+60x60", db="0x60"),
            "alert_rule_test": [
                fires("HarvesterVMStuck", "10m"),
                fires("HarvesterVMStuck", "11m", WEB, says=LONG),
                fires("HarvesterStuckUnknown", "60m"),
            ],
        },
        # One of two has no seconds; then all have them, but for the only one.
        {
            "input_series": series(**well, web="0+60x60", shop="2x60"),
            "alert_rule_test": [
                fires("HarvesterVMStuckSinceUnknown", "14m"),
                fires("HarvesterVMStuckSinceUnknown", "15m", SHOP, says=SINCE_UNKNOWN),
            ],
        },
        {
            "input_series": series(**well, shop="1x60", db="0x60", lab="1x60"),
            "alert_rule_test": [
                fires("HarvesterVMStuckSinceUnknown", "15m", SHOP, says=SINCE_UNKNOWN),
            ],
        },
        {
            "input_series": series(**well, web="0+60x60", shop="1x60", db="0x60", lab="1x60"),
            "alert_rule_test": [fires("HarvesterVMStuckSinceUnknown", "60m")],
        },
        {
            "input_series": series(complete="0x60", read="0+60x60"),
            "alert_rule_test": [
                fires("HarvesterStuckUnknown", "4m"),
                fires("HarvesterStuckUnknown", "5m", {}, says=UNKNOWN),
            ],
        },
        {"alert_rule_test": [fires("HarvesterStuckUnknown", "6m", {}, says=UNKNOWN)]},
        {
            "input_series": series(complete="1x60", read="0x60"),
            "alert_rule_test": [
                fires("HarvesterStuckOld", "15m"),
                fires("HarvesterStuckOld", "16m", {}, says=OLD),
            ],
        },
    )


def shows(panel: str, *values: tuple[str, float], namespace: str = ".*") -> Body:
    """What the panel shows after ten minutes."""
    expected = [{"labels": labels, "value": value} for labels, value in values]
    return {"expr": expressions(namespace)[panel], "eval_time": "10m", "exp_samples": expected}


def test_the_dashboard_shows_what_is_stuck(promtool: Path, tmp_path: Path) -> None:
    stuck = series(
        complete="1x60", read="0+60x60", web="0+60x60", db="5x60", shop="2x60", lab="1x60"
    )
    web = f'{{{VM}, name="web", namespace="shop", state="Stopping"}}'
    db = f'{{{VM}, name="db", namespace="lab", state="NotReady"}}'
    # The exporter before a move to another node is remembered for a while beside the one after it.
    again = [{**one, "series": other_pod(one["series"])} for one in stuck]
    promtool_tests(
        promtool,
        tmp_path,
        {
            "input_series": [*stuck, *again],
            "promql_expr_test": [
                shows("Stuck now", ("{}", 3)),
                shows("Longest", ("{}", 600)),
                shows("List", ("{}", 1)),
                shows("List read", ("{}", 0)),
                shows("Complete over time", ("{}", 1)),
                shows("By namespace", ('{namespace="shop"}', 2), ('{namespace="lab"}', 1)),
                shows("By kind", (f"{{{VM}}}", 3)),
                shows("By state", ('{state="Stopping"}', 2), ('{state="NotReady"}', 1)),
                shows("What is stuck", (web, 600), (db, 5)),
                shows("What is stuck", (web, 600), namespace="(shop|desk)"),
                shows("Stuck now", ("{}", 1), namespace="lab"),
                shows("Longest", ("{}", 5), namespace="lab"),
            ],
        },
    )


def other_pod(written: str) -> str:
    """The same series of another pod."""
    name, _, rest = written.partition("{")
    return f'{name}{{pod="other"{"," if rest else ""}{rest or "}"}'


def test_the_dashboard_never_shows_unknown_as_none(promtool: Path, tmp_path: Path) -> None:
    promtool_tests(
        promtool,
        tmp_path,
        {
            "input_series": series(complete="1x60", read="0x60"),
            "promql_expr_test": [shows("Stuck now", ("{}", 0)), shows("List read", ("{}", 600))],
        },
        {
            "input_series": series(complete="0x60"),
            "promql_expr_test": [shows("Stuck now"), shows("List", ("{}", 0))],
        },
        {
            "input_series": series(complete="0x60", shop="2x60"),
            "promql_expr_test": [shows("Stuck now", ("{}", 2))],
        },
        {"promql_expr_test": [shows("Stuck now"), shows("List"), shows("List read")]},
    )
    shown = {panel["title"]: panel["fieldConfig"]["defaults"] for panel in dashboard()["panels"]}
    assert shown["Stuck now"]["noValue"] == "unknown"
    assert shown["List"]["noValue"] == "no metrics"


def test_the_dashboard_is_one_that_grafana_can_lay_out() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        grid = panel["gridPos"]
        cells = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"])
                 for y in range(grid["y"], grid["y"] + grid["h"])}  # fmt: skip
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    names = [variable["name"] for variable in dashboard()["templating"]["list"]]
    assert names == ["datasource", "namespace"]
