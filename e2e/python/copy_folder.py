"""Copies a bucket into a folder with boto3 or pyarrow: `copy_folder.py boto3|pyarrow ENDPOINT BUCKET FOLDER`."""

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
    store = fs.S3FileSystem(anonymous=True, endpoint_override=address, scheme=scheme, region="us-east-1")
    fs.copy_files(bucket, folder, source_filesystem=store, destination_filesystem=fs.LocalFileSystem(), chunk_size=64 << 20)


{"boto3": with_boto3, "pyarrow": with_pyarrow}[sys.argv[1]](*sys.argv[2:])
