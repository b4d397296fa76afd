ARG NODE_IMAGE=node:24-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /src
COPY package.json package-lock.json ./
# The project's own Node.js is what a script would bring: it is here already.
RUN npm ci --ignore-scripts --workspaces=false
COPY . .
# Builds, too; the package holds what runs.
RUN npm pack --pack-destination /tmp && mkdir /package && tar -xzf /tmp/fullstop-*.tgz -C /package --strip-components=1

# What it needs, in the versions of the lock file.
FROM ${NODE_IMAGE} AS dependencies
WORKDIR /src
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --workspaces=false --omit=dev

FROM ${NODE_IMAGE}
COPY --from=dependencies /src/node_modules /usr/local/lib/node_modules/fullstop/node_modules
COPY --from=build /package /usr/local/lib/node_modules/fullstop
RUN ln -s ../lib/node_modules/fullstop/bin/fullstop.js /usr/local/bin/fullstop
USER node
WORKDIR /home/node
# So that a volume in its place is this user's.
RUN mkdir data
# `docker stop` kills after ten seconds.
ENV FULLSTOP_DRAIN_MS=7000
EXPOSE 4747
ENTRYPOINT ["fullstop"]
CMD ["serve"]
