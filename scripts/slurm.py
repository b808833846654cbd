"""The scenarios of scripts/test-slurm.sh.

`slurm.py CLIPOOD FOLDER` starts a Slurm in a new folder below FOLDER, runs every scenario and ends what it has started, by process
id. The environment variable KEEP=1 keeps the folder.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 300.0
# A node refuses a job that was ended there in the same second, and a refused job has failed.
REST = 3.0
NODES = ("n1", "n2", "n3")

# Enough trainings and shards that three workers have something to share; the checkpoints make an interrupted training go on.
RECIPE = """
name = "grid"
model = "demo"
methods = ["zero-shot", "coop", "locoop"]
shots = [1, 4]
seeds = [1]
detectors = ["mcm", "gl_mcm"]

[data]
id = "demo-id"
ood = ["demo-near", "demo-glyphs"]

[train]
crop_scale = [0.5, 1.0]
views = 2
epochs = {epochs}

[engine]
shard_bytes = 100_000
checkpoint_steps = 5

[metrics]
bootstrap = 20
"""

CLUSTER = """
engine = "slurm"
workers = 3
devices = "cpu:1"
shared = ["{root}"]
program = "{clipood}"

[resources]
cpus = 1
memory = "500M"
time = "00:30:00"

[environment]
RAYON_NUM_THREADS = "1"

[slurm]
partition = "low"
# Smaller than the array, which is then split.
max_array_size = 2
"""

CONFIG = """
ClusterName=clipood
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MaxArraySize=100
KillWait=20
MinJobAge=600
ReturnToService=2
{nodes}
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE State=UP
PartitionName=high Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF State=UP
"""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def until(what, check, limit=LIMIT):
    """The first true answer of `check`, which is asked twice a second."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(0.5)
    raise SystemExit(f"not within {limit:.0f} s: {what}")


class Slurm:
    """A controller and its nodes, as processes of this one."""

    def __init__(self, root):
        self.root = root
        self.processes = []
        self.waiting = {}
        for folder in ("munge", "state", *(f"spool-{node}" for node in NODES)):
            (root / folder).mkdir(parents=True)
        controller, *ports = free_ports(1 + len(NODES))
        nodes = "\n".join(
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=1000 State=UNKNOWN"
            for node, port in zip(NODES, ports)
        )
        self.config = root / "slurm.conf"
        self.config.write_text(CONFIG.format(root=root, controller=controller, nodes=nodes))
        self.environment = {**os.environ, "SLURM_CONF": str(self.config)}

    def start(self):
        key = self.root / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        munge = self.root / "munge"
        self.run(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge}/socket", f"--pid-file={munge}/pid",
            f"--log-file={munge}/log", f"--seed-file={munge}/seed", "--num-threads=2",
        )
        until("the socket of munged", lambda: (munge / "socket").exists(), 30)
        self.run("slurmctld", "-D", "-f", str(self.config))
        until("slurmctld answers", lambda: self.ask("scontrol", "ping", check=False).find("UP") >= 0, 60)
        for node in NODES:
            self.run("slurmd", "-D", "-N", node, "-f", str(self.config))
        until("all nodes are idle", lambda: self.ask("sinfo", "-h", "-N", "-p", "low", "-o", "%t").split() == ["idle"] * 3, 60)

    def run(self, *words):
        log = (self.root / f"{words[0]}-{len(self.processes)}.out").open("wb")
        self.processes.append(subprocess.Popen(words, env=self.environment, stdout=log, stderr=log, start_new_session=True))

    def ask(self, *words, check=True, stdin=""):
        done = subprocess.run(words, env=self.environment, input=stdin, capture_output=True, text=True)
        if check and done.returncode != 0:
            raise SystemExit(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def jobs(self, *more):
        """Number, name and state of every task that is queued or running."""
        lines = self.ask("squeue", "-h", "-r", "-o", "%A|%j|%T|%i", *more).splitlines()
        return [line.split("|") for line in lines]

    def running(self, name):
        return [job for job in self.jobs() if job[1].endswith(f"-{name}") and job[2] == "RUNNING"]

    def hurry(self):
        """A job that was requeued waits two minutes; nobody has that time here. Call it often, as it must see a job wait for REST."""
        now = time.monotonic()
        pending = [task for _, _, state, task in self.jobs() if state == "PENDING"]
        self.waiting = {task: self.waiting.get(task, now) for task in pending}
        for task, since in self.waiting.items():
            if now - since > REST:
                self.ask("scontrol", "update", f"jobid={task}", "StartTime=now", check=False)

    def stop(self):
        self.ask("scancel", "--user=root", check=False)
        end = time.monotonic() + 60
        while self.jobs() and time.monotonic() < end:
            time.sleep(0.5)
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class World:
    """The command, its folder and the tables that every run must end with."""

    def __init__(self, slurm, clipood):
        # Folders of users have blanks.
        self.slurm, self.clipood, self.root = slurm, clipood, slurm.root / "my world"
        self.root.mkdir()
        self.write_recipe(epochs=400)
        (self.root / "here.toml").write_text(CLUSTER.format(root=slurm.root, clipood=clipood))

    def write_recipe(self, epochs):
        (self.root / "grid.toml").write_text(RECIPE.format(epochs=epochs))

    def command(self, *words, code=0):
        # As the workers: a training on a CPU rounds by its number of threads.
        environment = {**self.slurm.environment, "RAYON_NUM_THREADS": "1"}
        done = subprocess.run([self.clipood, *words], cwd=self.root, env=environment, capture_output=True, text=True)
        if done.returncode != code:
            raise SystemExit(f"clipood {' '.join(words)}: exit code {done.returncode}, expected {code}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def submit(self, run, *more, code=0):
        return self.command(
            "submit", "grid.toml", "--cluster", "here.toml", "--run", run, "--store", f"store-{run}", *more, code=code
        )

    def status(self, run):
        return json.loads(self.command("status", run, "--store", f"store-{run}", "--json"))

    def is_done(self, run, stage):
        return any(s["stage"] == stage and s["done"] == s["units"] for s in self.status(run)["stages"])

    def finish(self, run):
        """Waits for the end of a run while requeued jobs are started at once, and compares it with the local run."""

        def finished():
            self.slurm.hurry()
            if self.status(run)["finished"]:
                return True
            if not self.slurm.jobs():
                raise SystemExit(f"{run}: no job is left, and the run is not finished\n{self.logs(run)}")
            return False

        until(f"the end of {run}", finished)
        assert self.tables(run) == self.tables("local"), f"{run}: other tables\n{self.tables(run)}\n{self.tables('local')}"
        self.command("status", run, "--store", f"store-{run}", "--audit")

    def tables(self, run):
        return [line for line in self.command("report", run).splitlines() if run not in line]

    def logs(self, run):
        logs = sorted((self.root / run / "_run" / "jobs").rglob("*.log"))
        return "".join(f"== {log.name}\n{log.read_text()}" for log in logs)

    def parts(self, run):
        """The features with the times of their files."""
        parts = (self.root / f"store-{run}").rglob("features/**/*.parquet")
        return {str(part): part.stat().st_mtime_ns for part in parts}


def plain(world, slurm):
    """A run over three nodes, one of its arrays split, gives the tables of a local run."""
    text = world.submit("plain")
    for word in ("extract", "train", "score", "report"):
        assert word in text, text
    again = world.submit("plain", code=2)
    assert "queued or running" in again and "scancel" in again, again
    nodes = set()

    def watched():
        nodes.update(slurm.ask("squeue", "-h", "-t", "RUNNING", "-o", "%N").split())
        return len(nodes) == 3

    until("all three nodes at work", watched)
    world.finish("plain")
    jobs = world.status("plain")["submissions"][0]["jobs"]
    assert [job["first"] for job in jobs if job["name"] == "extract"] == [0, 2], jobs
    until("an empty queue", lambda: not slurm.jobs())
    assert "nothing to submit" in world.submit("plain")


def disturbed(world, slurm):
    """A requeued, an interrupted and a preempted task in the middle lose nothing."""
    world.submit("disturbed")
    task = until("a task of extract", lambda: slurm.running("extract"))[0][3]
    slurm.ask("scontrol", "requeue", task)
    until("it waits again", lambda: any(job[3] == task and job[2] == "PENDING" for job in slurm.jobs()))

    def training():
        slurm.hurry()
        return {task: number for number, _, _, task in slurm.running("train")}

    def both():
        """A task that has the number of its array, and another of the same array."""
        tasks = training()
        pairs = ((task, other) for task, number in tasks.items() for other in tasks if task != other)
        return next((pair for pair in pairs if all(name.startswith(f"{tasks[pair[0]]}_") for name in pair)), None)

    task, other = until("two tasks of an array of train", both)
    time.sleep(1)
    # What Slurm sends before the time limit.
    slurm.ask("scancel", "--signal=USR1", "--batch", task)
    until("it queues itself again", lambda: any(job[3] == task and job[2] == "PENDING" for job in slurm.jobs()))
    assert other in training(), "the whole array has been queued again"
    until("it is at work again", lambda: task in training())
    script = "#!/bin/bash\nsleep 3\n"
    slurm.ask("sbatch", "--partition=high", "--array=0-2", "--output=/dev/null", stdin=script)
    until("it is preempted", lambda: not slurm.running("train"))
    world.finish("disturbed")
    logs = world.logs("disturbed")
    assert "queues itself again" in logs and "start 2" in logs, logs


def broken(world, slurm):
    """Workers that fail by configuration leave the later jobs unrun, and the status says why; mended, they do the run."""
    world.command("plan", "grid.toml", "--run", "broken", "--store", "store-broken", "--devices", "cpu:1")
    planned = world.root / "broken" / "run.json"
    good = planned.read_bytes()
    # As if the nodes had another version than the machine that has planned.
    other = json.loads(good)
    other["versions"]["clipood"] = "0.0.9"
    del other["seal"]
    planned.write_text(json.dumps(other))
    world.submit("broken")
    until("an empty queue", lambda: not slurm.jobs())
    logs = world.logs("broken")
    assert "trying again does not help" in logs, logs
    assert not [log for log in (world.root / "broken").rglob("*.log") if not log.name.startswith("extract")]
    text = world.command("status", "broken", "--store", "store-broken")
    assert "not finished" in text and "failed: " in text and "0.0.9" in text, text
    planned.write_bytes(good)
    world.submit("broken")
    world.finish("broken")


def resumed(world, slurm):
    """What is cancelled stays cancelled, and submitting again queues only what is missing."""
    world.submit("resumed")
    until("the extraction", lambda: world.is_done("resumed", "extract"))
    until("a task of train", lambda: slurm.running("train"))
    slurm.ask("scancel", "--user=root")
    until("an empty queue", lambda: not slurm.jobs())
    time.sleep(3)
    assert not slurm.jobs(), "a cancelled job has queued itself again"
    assert not world.status("resumed")["finished"]
    before = world.parts("resumed")
    text = world.submit("resumed")
    assert "extract" not in text and "train" in text, text
    world.finish("resumed")
    assert world.parts("resumed") == before, "features were extracted again"


def refused(world, slurm):
    """Mistakes are found before anything is queued."""
    manifest = world.root / "here.toml"
    good = manifest.read_text()
    for change, words in (
        (("engine = \"slurm\"", "engine = \"pbs\""), ("pbs", "slurm")),
        (("shared = [\"", "shared = [\"/nowhere"), ("nowhere",)),
        (("00:30:00", "00:01:00"), ("time", "90")),
        (("[slurm]", "[rates]\nimages_per_second = 0.001\n[slurm]"), ("extract", "00:30:00")),
        (("partition = \"low\"", "partition = \"none-such\""), ("none-such", "partition")),
    ):
        manifest.write_text(good.replace(*change))
        code = 1 if "none-such" in words else 2
        text = world.submit("refused", code=code)
        for word in words:
            assert word in text, f"no {word} in {text}"
        assert not slurm.jobs(), text
    manifest.write_text(good)


def main():
    clipood = str(Path(sys.argv[1]).resolve())
    folder = Path(sys.argv[2]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="run.", dir=folder))
    slurm = Slurm(root)
    began = time.monotonic()
    passed = False
    try:
        slurm.start()
        world = World(slurm, clipood)
        world.command("run", "grid.toml", "--run", "local", "--store", "store-local", "--devices", "cpu:1")
        print(f"Slurm with three nodes, and the local run: {time.monotonic() - began:.0f} s", flush=True)
        for scenario in (plain, disturbed, broken, resumed, refused):
            start = time.monotonic()
            scenario(world, slurm)
            print(f"{scenario.__doc__} ({time.monotonic() - start:.0f} s)", flush=True)
        passed = True
    finally:
        slurm.stop()
        if not passed:
            workers = sorted(root.glob("my world/*/_run/jobs/**/*.log"))
            for log in [*sorted(root.glob("*.log")), *workers]:
                print(f"== {log.name}", *log.read_text(errors="replace").splitlines()[-15:], sep="\n", file=sys.stderr)
        if passed and not os.environ.get("KEEP"):
            shutil.rmtree(root)
    print(f"make test-slurm: all scenarios in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
