FROM node:24-slim AS build
WORKDIR /src
COPY . .
# `prepare` builds; the package holds what runs.
RUN npm ci && npm pack --pack-destination /tmp

FROM node:24-slim
COPY --from=build /tmp/fullstop-*.tgz /tmp/fullstop.tgz
RUN npm install --global /tmp/fullstop.tgz && npm cache clean --force && rm /tmp/fullstop.tgz
USER node
WORKDIR /home/node
EXPOSE 4747
ENTRYPOINT ["fullstop"]
CMD ["serve"]
