"""The two servers of scripts/test-cloud.sh from the outside.

`cloud.py create` waits until both answer and makes a bucket and a container called `clipood`; `cloud.py wait URL` waits until
something lies under URL. Addresses and keys come from the environment, as for clipood.
"""

import os
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


if __name__ == "__main__":
    if sys.argv[1] == "create":
        until("creating a bucket", lambda: s3().create_bucket(Bucket="clipood"))
        until("creating a container", lambda: azure().create_container("clipood"))
    else:
        until(f"something under {sys.argv[2]}", lambda: lies_under(sys.argv[2]))
