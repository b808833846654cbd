"""The two servers of scripts/test-cloud.sh from the outside.

`cloud.py workers CLIPOOD RUN STORE COUNT KILLS` starts workers of a planned run, kills one of them at random every few seconds and
starts it again, and ends when all have finished. `cloud.py create` waits until both answer and makes a bucket and a container called `clipood`; `cloud.py wait URL` waits until
something lies under URL. Addresses and keys come from the environment, as for clipood.
"""

import json
import os
import random
import subprocess
import sys
import time

import boto3
from azure.storage.blob import BlobServiceClient

LIMIT = 120.0


def s3():
    return boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT"])


def azure():
    account = os.environ["AZURE_STORAGE_ACCOUNT_NAME"]
    url = f"{os.environ['AZURITE_BLOB_STORAGE_URL']}/{account}"
    return BlobServiceClient(url, credential=os.environ["AZURE_STORAGE_ACCOUNT_KEY"])


def until(what: str, attempt) -> None:
    """Repeats `attempt` until it returns something true; errors count as not yet."""
    start, last = time.monotonic(), None
    while time.monotonic() - start < LIMIT:
        try:
            if attempt():
                return
        except Exception as error:  # a server that is not up yet fails in many ways
            last = error
        time.sleep(0.2)
    sys.exit(f"{what}: not within {LIMIT:.0f} s; last error: {last}")


def lies_under(url: str) -> bool:
    scheme, rest = url.split("://", 1)
    bucket, prefix = rest.split("/", 1)
    if scheme == "s3":
        return s3().list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)["KeyCount"] > 0
    return next(iter(azure().get_container_client(bucket).list_blobs(name_starts_with=prefix)), None) is not None


def workers(clipood, run, store, count, kills):
    """SIGKILL at random moments, so that every stage gets some of them: the pauses are a part of the time that is left."""
    rng = random.Random(1)

    def start(index):
        words = [clipood, "worker", run, "--store", store, "--count", str(count), "--index", str(index)]
        log = open(f"{os.environ['LOGS']}/worker-{index}.log", "ab")
        return subprocess.Popen(words, stdout=log, stderr=log)

    def stage():
        done = subprocess.run([clipood, "status", run, "--store", store, "--json"], capture_output=True, text=True)
        stages = json.loads(done.stdout)["stages"] if done.returncode == 0 else []
        return next((stage["stage"] for stage in stages if stage["done"] < stage["units"]), "none")

    alive = {index: start(index) for index in range(count)}
    killed = []
    while len(killed) < kills:
        time.sleep(rng.uniform(0.5, 5.0))
        working = [index for index, worker in alive.items() if worker.poll() is None]
        failed = [index for index, worker in alive.items() if worker.poll() not in (None, 0)]
        if failed:
            raise SystemExit(f"workers {failed} have failed")
        if not working:
            break
        index = rng.choice(working)
        killed.append(stage())
        alive[index].kill()
        alive[index].wait()
        alive[index] = start(index)
    codes = {index: worker.wait() for index, worker in alive.items()}
    if any(codes.values()):
        raise SystemExit(f"exit codes of the workers: {codes}")
    print(f"{len(killed)} kills, while the first open stages were: {', '.join(killed)}")


if __name__ == "__main__":
    if sys.argv[1] == "workers":
        workers(*sys.argv[2:5], int(sys.argv[5]), int(sys.argv[6]))
    elif sys.argv[1] == "create":
        until("creating a bucket", lambda: s3().create_bucket(Bucket="clipood"))
        until("creating a container", lambda: azure().create_container("clipood"))
    else:
        until(f"something under {sys.argv[2]}", lambda: lies_under(sys.argv[2]))
