# Harborhook's one image: operator, dispatcher and harborctl, which are compiled before.
#
#   cargo build --release --bin operator --bin dispatcher --bin harborctl
#   docker build --tag harborhook .
#
# The base has the C library, the certificates of public authorities, time zones, and no shell.
ARG BASE=gcr.io/distroless/cc-debian12:nonroot
FROM ${BASE}
# Folder of the programs, seen from this one.
ARG PROGRAMS=target/release
LABEL org.opencontainers.image.title="Harborhook" \
      org.opencontainers.image.description="Webhooks as Kubernetes resources" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY ${PROGRAMS}/operator ${PROGRAMS}/dispatcher ${PROGRAMS}/harborctl /usr/local/bin/
ENV PATH=/usr/local/bin:/usr/bin:/bin
# By number, so that a cluster can tell that it is not root. Nothing is written outside of what is mounted.
USER 65532:65532
WORKDIR /
# Harborhook's chart names the program; by itself the image shows what it is.
CMD ["harborctl", "--help"]
