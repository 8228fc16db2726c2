"""Copies a bucket or a repository into a folder: `copy_folder.py boto3|pyarrow|huggingface_hub ENDPOINT NAME FOLDER`.

AWS_CA_BUNDLE names the authority of an endpoint with TLS.
"""

import os
import sys


def with_boto3(endpoint: str, bucket: str, folder: str) -> None:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED, s3={"addressing_style": "path"}),
    )
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            target = os.path.join(folder, item["Key"])
            os.makedirs(os.path.dirname(target), exist_ok=True)
            client.download_file(bucket, item["Key"], target)


def with_pyarrow(endpoint: str, bucket: str, folder: str) -> None:
    # As Ray's Checkpoint.to_directory does.
    from pyarrow import fs

    scheme, address = endpoint.split("://")
    store = fs.S3FileSystem(anonymous=True, endpoint_override=address, scheme=scheme, region="us-east-1", tls_ca_file_path=os.environ.get("AWS_CA_BUNDLE"))
    fs.copy_files(bucket, folder, source_filesystem=store, destination_filesystem=fs.LocalFileSystem(), chunk_size=64 << 20)


def with_huggingface_hub(endpoint: str, repository: str, folder: str) -> None:
    os.environ.update(HF_ENDPOINT=endpoint, HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1")
    from huggingface_hub import snapshot_download

    snapshot_download(repository, local_dir=folder)


{"boto3": with_boto3, "pyarrow": with_pyarrow, "huggingface_hub": with_huggingface_hub}[sys.argv[1]](*sys.argv[2:])
